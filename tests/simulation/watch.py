"""Sees everything that was recorded, and says at once what may not be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation.reference import Asked, Ended, Entry, Late, Opened, Sent, TimeUp
from status.records import PartRef
from status.states import FINAL

if TYPE_CHECKING:
    from simulation.hosts import Child, Host
    from simulation.world import World

_PART = re.compile(r"(\d+)\.(\d+)")
#: Answers of a transition that was sent again, beside the same one.
SAID_AGAIN = {
    # What was recorded is recorded. Where the first answer owed something, it is due all the same.
    "finish": {
        ("late", "recorded"),
        ("late", "superseded"),  # a failure, of a part whose time was up: its claim went with the first
        ("decided", "recorded"),
        ("decided", "gone"),
        ("late", "gone"),
        ("recorded", "gone"),
    },
    "release": {("start", "none"), ("recorded", "none"), ("decided", "none")},
    "fire": {("expired", "none"), ("start", "none"), ("recorded", "none"), ("decided", "none")},
    "give_back": {("decided", "returned")},
    "submit": set(),
}


#: Transitions, and answers of them, with which an await is on record.
OPENS = {"open_join opened", "open_join granted", "open_join answered"}


class Violation(BaseException):
    """A rule was broken. Not an `Exception`: no code of the product may take it for a failed step."""


@dataclass
class Body:
    """A step that was granted and runs."""

    ref: PartRef
    token: str
    child: Child
    undoes: str | None  #: the key of what it undoes
    began_ms: int
    over: bool = False
    lost: bool = False  #: Redis has forgotten its claim
    cut_off: bool = False  #: nobody vouched for it for too long: it may overlap its successor

    @property
    def place(self) -> tuple[int, str]:
        return self.ref.n, self.ref.p

    @property
    def lives(self) -> bool:
        return not self.over and not self.child.dead


@dataclass
class Seen:
    """What Redis has, as far as it goes; a restart may take it back."""

    log: list[Entry] = field(default_factory=list)
    journal: dict[str, str] = field(default_factory=dict)  #: of all rounds
    late: dict[str, str] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)  #: what was in them before a restart of the run
    opened_ms: dict[int, int] = field(default_factory=dict)
    nonces: dict[int, str] = field(default_factory=dict)
    decided: dict[int, int] = field(default_factory=dict)  #: await -> length of the log when it was decided
    not_before_ms: dict[tuple[int, str], int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    granted: set[tuple[int, str]] = field(default_factory=set)  #: the actions that were ever begun
    submitted: bool = False
    ended: bool = False


class Watch:
    """What was recorded, and who runs what."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen = Seen()
        self.bodies: dict[str, Body] = {}
        self.restored = False

    # --- what was recorded ----------------------------------------------------------

    def saw(  # noqa: C901  # a branch a transition
        self, name: str, args: Any, answer: Any, journal: Mapping[str, str], late: Mapping[str, str]
    ) -> None:
        """A script was run; these are the journal and the late outcomes now."""
        seen, code = self.seen, answer[0] if isinstance(answer, list) and answer else answer
        if name == "submit":
            seen.submitted = True
        elif name == "complete" and code == "completed":
            seen.ended = True
        elif name == "cancel" and code in {"decided", "noted"} and args[2] not in seen.asked:
            seen.asked.add(args[2])
            seen.log.append(Asked(code, args[0], int(args[1])))
        elif f"{name} {code}" in OPENS and int(args[0]) not in seen.opened_ms:
            seen.opened_ms[int(args[0])], seen.nonces[int(args[0])] = self._world.now_ms, args[2]
            seen.log.append(Opened(int(args[0])))
        elif f"{name} {code}" == "pass passed":
            self._passed(journal)
        elif name == "restart" and code == "restarted":
            seen.forgotten |= (seen.journal.keys() - journal.keys()) | (seen.late.keys() - late.keys())
        elif name == "send" and code == "accepted":
            self._sent(args)
        elif name == "finish":
            self._finished(args, code)
        elif f"{name} {code}" in {"release start", "fire recorded"}:
            self._taken_back(name, args)
        if not journal.items() >= {it for it in self._kept(seen.journal) if not it[0].endswith(":order")}:
            raise Violation(f"{name} changed the journal from {seen.journal} to {journal}")
        if not late.items() >= self._kept(seen.late):
            raise Violation(f"{name} changed what came late from {seen.late} to {late}")
        if journal.keys() - seen.journal.keys() or late.keys() - seen.late.keys():
            self._recorded(name, args, journal, late)

    def _passed(self, journal: Mapping[str, str]) -> None:
        """Awaits were opened and decided at once, one after the other."""
        seen = self.seen
        new = journal.keys() - seen.journal.keys()
        for n in sorted(int(one) for one in new if one.isdigit()):
            seen.opened_ms[n], seen.nonces[n] = self._world.now_ms, json.loads(journal[str(n)])["x"]
            parts = sorted(int(found[2]) for one in new if (found := _PART.fullmatch(one)) and int(found[1]) == n)
            seen.log += [Opened(n, passed=True), *(Ended(n, p, journal[f"{n}.{p}"][0]) for p in parts)]
            seen.decided[n] = len(seen.log)
        seen.journal |= journal

    def _taken_back(self, name: str, args: Any) -> None:
        n, p = (args[1], args[2]) if name == "fire" else (args[0], args[1])
        for body in self.bodies.values():
            if body.place != (int(n or 0), str(p)):
                continue
            if name == "release":
                body.cut_off |= body.child.host.late
            elif args[0] == "attempt":
                # Its attempt has ended: what it says of that itself is nothing new.
                self.seen.asked.add(body.token)

    def _kept(self, known: Mapping[str, str]) -> set[tuple[str, str]]:
        return {(field, value) for field, value in known.items() if field not in self.seen.forgotten}

    def _recorded(self, name: str, args: Any, journal: Mapping[str, str], late: Mapping[str, str]) -> None:
        seen = self.seen
        new = journal.keys() - seen.journal.keys()
        ended = [
            Ended(int(found[1]), int(found[2]), journal[field][0]) for field in new if (found := _PART.fullmatch(field))
        ]
        ended.sort()
        if len(ended) > 1 and name != "open_join":  # which may find several promises with their values
            raise Violation(f"{name} ended {ended} at once")
        if ended and name == "finish" and ended[0].came == "e":
            self._only_the_claimant_fails(args)
        seen.log += ended
        decided = sorted(int(field) for field in new if field.isdigit())
        if decided and name == "fire" and args[0] == "join":
            seen.log.append(TimeUp(decided[0]))
        # What is stopped by a decision comes late; what comes late may decide a settle.
        of_itself = name in {"cancel", "open_join"} or ended or isinstance(seen.log[-1], TimeUp)
        at = len(seen.log)
        for place in sorted(late.keys() - seen.late.keys()):
            n, _, p = place.partition(".")
            seen.log.append(Late(int(n), p, late[place][0]))
        for n in decided:
            seen.decided[n] = at if of_itself else len(seen.log)
        seen.journal |= journal
        seen.late |= late

    def _sent(self, args: Any) -> None:
        if args[2] not in self.seen.asked:
            self.seen.asked.add(args[2])
            self.seen.log.append(Sent(int(args[1][1:])))

    def _finished(self, args: Any, code: str) -> None:
        n, p, token, kind, delay_ms = int(args[0]), str(args[1]), args[4], args[5], args[7]
        if kind == "retry" and code == "retrying" and token not in self.seen.asked:
            self.seen.asked.add(token)
            self._only_the_claimant_fails(args)
            ended_ms = args[17]  # of one that is recorded later, when it ended
            self.seen.not_before_ms[n, p] = int(ended_ms or self._world.now_ms) + int(delay_ms)

    def _only_the_claimant_fails(self, args: Any) -> None:
        place, token = (int(args[0]), str(args[1])), args[4]
        order = list(self.bodies)
        for body in self.bodies.values():
            after = order.index(body.token) > order.index(token) if token in self.bodies else True
            if body.token != token and body.place == place and body.lives and after and not body.lost:
                raise Violation(f"{place} failed by {token}, which is run by {body.token} now")

    def same_answer(self, name: str, first: Any, again: Any) -> None:
        """The reply was lost and the call sent again: it must say the same."""
        codes = tuple(answer[0] if isinstance(answer, list) and answer else answer for answer in (first, again))
        if codes[0] != codes[1] and codes not in SAID_AGAIN.get(name, set()):
            raise Violation(f"{name} with the same token answered {codes[0]}, then {codes[1]}")

    # --- who runs -------------------------------------------------------------------

    def granted_to(
        self, child: Child, ref: PartRef, token: str, undoes: str | None = None, *, begins: bool = True
    ) -> None:
        """Redis has given a claim away: a body begins, or may do so at any time."""
        if token in self.bodies:
            return
        world, place = self._world, (ref.n, ref.p)
        body = Body(ref, token, child, undoes, world.now_ms)
        for other in self.bodies.values():
            if other.place == place and other.lives and not self._may_overlap(other):
                raise Violation(f"{place} runs twice: {other.child.name} since {other.began_ms}, now {child.name}")
        known = self.seen.late if ref.p.endswith("u") else self.seen.journal
        if f"{ref.n}.{ref.p}" in known:
            raise Violation(f"{place} begins although it has ended")
        if world.now_ms < self.seen.not_before_ms.get(place, 0):
            raise Violation(f"{place} begins before its retry is due")
        if ref.nonce != self.seen.nonces[ref.n]:
            raise Violation(f"{place} begins for a message of another life of its await")
        if ref.n in self.seen.decided and not ref.p.endswith("u"):
            raise Violation(f"{place} begins although its await is decided")
        self._not_too_early(body)
        self._not_undone_while_it_runs(body)
        world.saga.must_know(ref, undoes)
        self.bodies[token] = body
        if begins:
            self.begins(token)
        world.note(f"may run {ref.step_id} attempt {ref.attempt}")

    def goes_ahead(self, child: Child, ref: PartRef, token: str) -> None:
        """A body begins without a claim: its turn is ahead of the journal, and nobody else may run the same."""
        for other in self.bodies.values():
            if other.place == (ref.n, ref.p) and other.lives and not self._may_overlap(other):
                raise Violation(
                    f"{ref.n}.{ref.p} runs twice: {other.child.name}, now {child.name} ahead of the journal"
                )
        if ref.n in self.seen.opened_ms and not child.host.shaky:
            raise Violation(f"{child.name} runs {ref.n}.{ref.p} ahead of a journal that has it")
        self._world.saga.must_know(ref, None)
        self.bodies[token] = Body(ref, token, child, None, self._world.now_ms)
        self._world.note(f"may run {ref.step_id} ahead of the journal")

    def begins(self, token: str) -> None:
        """A body that was granted begins."""
        body = self.bodies[token]
        if self._world.action_of(body.ref, body.undoes) is not None:
            self.seen.granted.add(body.place)

    @staticmethod
    def _may_overlap(other: Body) -> bool:
        return other.cut_off or other.child.host.shaky

    def _not_too_early(self, body: Body) -> None:
        joins, ref = self._world.plan.joins, body.ref
        action = self._world.action_of(ref, body.undoes)
        if action is None or not joins[action].delayed[int(ref.p)]:
            return
        join, p = joins[action], int(ref.p)
        before = {
            entry.p for entry in self.seen.log if isinstance(entry, Ended) and entry.n == ref.n and entry.came != "v"
        }
        early = self._world.now_ms < self.seen.opened_ms[ref.n] + round(join.delay_s * 1000)
        if early and (join.kind != "race" or not all(q in before for q in range(p))):
            raise Violation(f"{ref.n}.{ref.p} begins before its delay is over")

    def _not_undone_while_it_runs(self, body: Body) -> None:
        undoes = body.undoes
        for other in self.bodies.values() if undoes else ():
            if other.lives and other.ref.step_id == undoes and not self._may_overlap(other):
                raise Violation(f"{undoes} is undone while {other.child.name} runs it")

    def cut_off(self, host: Host) -> None:
        """Nobody vouches for the steps of this host for longer than a lease."""
        for body in self.bodies.values():
            body.cut_off |= body.child.host is host

    def ended(self, token: str) -> None:
        """A body is over."""
        self.bodies[token].over = True

    @property
    def running(self) -> bool:
        return any(body.lives for body in self.bodies.values())

    @contextmanager
    def in_hook(self) -> Iterator[None]:
        """What is called here must raise nothing: Celery would take it for the step's own failure."""
        try:
            yield
        except Exception as error:
            raise Violation(f"raised into Celery's tracer: {error!r}") from error

    # --- a restart of Redis ---------------------------------------------------------

    def save(self) -> Seen:
        return deepcopy(self.seen)

    def restore(self, saved: Seen) -> None:
        """Redis knows only this any more."""
        self.seen, self.restored = saved, True
        for body in self.bodies.values():
            body.lost = True


def is_final(state: str | None) -> bool:
    return state in FINAL
