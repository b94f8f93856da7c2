"""Goes through awaits of short steps ahead of the journal, and records many of them in one round trip.

A turn that came first to the end of its journal has a lease on it (see `read.lua`): no other turn begins there while
its worker vouches for it. So it may run what its workflow asks for before the journal knows that this was asked: steps
without claims, awaits that are opened and decided at once (see `pass.lua`). If the process dies, all of that happens
again, as it does to a step whose process dies a moment before it records what the step gave; and by claims then, which
count what kills its process. Temporal's local activities and Restate's `ctx.run` are recorded so, several at a time.

It is for steps that may run twice, and for awaits of which nobody needs to know before they are over: no time limit of
the await, no undo, no saga. At the first part that fails, or is to be made again, its await is opened, and what came of
its parts is recorded as if they had been claimed all the time.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import from_json

from canvas import granted, opening, tracing
from canvas.outcomes import Decision
from canvas.parking import caught_up, going_on, seen_of
from canvas.perform import Here
from canvas.series import PATIENT, Series
from status.ahead import Ahead, Finish
from status.passages import Passage, PassedPart
from status.records import Grant, PartRef, RunRecord, Wanted

if TYPE_CHECKING:
    from canvas.call import Call
    from canvas.in_place import Chosen, InPlace
    from canvas.replay import Asks
    from canvas.run import Run
    from status.records import NewPart

#: After so long what a turn has gone on with is recorded, whatever it does next.
RECORD_S = 0.05

#: A lease is good for three ticks, of a second each, and vouched for once a second while its turn goes on. Who has
#: heard nothing of Redis for so long does not rely on it: the process may have stood still, and its worker too.
LEASE_S = 1.0


def lead(record: RunRecord, in_place: InPlace) -> None:
    """The worker vouches for the turn's lease from now on, if it has one."""
    if record.lease is not None:
        ref = PartRef(record.run_id, 0, "0", "turn", 1)
        in_place.holding.lead(record.lease.token, granted.said_of(ref, record.workflow))


def kept_up(record: RunRecord, in_place: InPlace) -> RunRecord | None:
    """Record what the turn went through, once that is a while ago. Gives the run as it is then; None: it is another."""
    ahead = record.ahead
    if ahead is None or not ahead.passages or ahead.recorded or monotonic() - ahead.since_s < RECORD_S:
        return record
    asked_s = monotonic()
    if not caught_up(in_place.engine, record):
        return None
    lease = record.lease
    return record._replace(lease=lease._replace(asked_s=asked_s) if lease and not ahead.stops else None)


def may_pass(record: RunRecord, run: Run, asks: Asks, here: Chosen) -> bool:
    """Whether the turn may go through this await before it is on record."""
    recipe = asks.recipe
    if run.writes or not _relies_on_lease(record) or recipe.policy not in PATIENT or len(here.wanted) != recipe.size:
        return False
    if recipe.undo or recipe.timeout_s or recipe.state != "running" or record.fields["state"] == "cancelling":
        return False
    if record.fields.get("again"):  # what had succeeded before a retry of the run is not made again
        return False
    return all(
        _is_plain(call, part) and here.by.is_brief(cast("Call[Any]", call).definition)
        for call, part in zip(recipe.parts, asks.parts, strict=True)
    )


def _relies_on_lease(record: RunRecord) -> bool:
    return record.lease is not None and monotonic() - record.lease.asked_s < LEASE_S


def _is_plain(call: Any, part: NewPart) -> bool:
    """Whether nobody has to know of a part before it is over."""
    plan = cast("Call[Any]", call).plan
    return bool(
        call.definition.idempotent
        and not part.within_ms
        and plan.undo is None
        and plan.undone_by is None
        and plan.undoes is None
    )


class Passing(Series):
    """The parts of one await, which run before it is opened."""

    def __init__(self, chosen: Chosen, record: RunRecord, run: Run, asks: Asks) -> None:
        super().__init__(chosen, record, asks, opening.nonce_for(run, asks))
        self._run = run

    def go(self) -> RunRecord | bool:
        """Run them. Returns the run as it is once they have ended, or whether the turn is over."""
        lease = self._record.lease
        assert lease is not None  # noqa: S101  # see may_pass
        self._since_s = lease.at_s
        for wanted in self.wanted:
            self._todo.append((wanted, Grant("granted", lease.at_ms, self._deadline_ms(wanted))))
        while self._todo and (not self._kept or (self._by.left_s() > 0 and _relies_on_lease(self._record))):
            finish = self._one().kept
            if finish is None or _overran(finish, self.wanted[len(self._kept)]):
                break
            self._kept.append(finish)
            if finish.kind != "done":
                break
        if len(self._kept) == self._asks.recipe.size and self._kept[-1].kind == "done":
            return self._passed()
        if self._kept:
            return self._opened()
        return opening.open_await(self._by.engine, self._record, self._run, self._asks)

    def _deadline_ms(self, wanted: Wanted) -> int:
        lease = cast("Any", self._record.lease)
        now_ms = lease.at_ms + int((monotonic() - lease.at_s) * 1000)
        return now_ms + wanted.timeout_ms if wanted.timeout_ms else 0

    def _hold(self, running: str = "") -> None:
        """Nothing is claimed here: the worker vouches for the turn (see `lead`)."""

    def _one(self) -> Here:
        wanted, grant = self._todo.popleft()
        here = Here(wanted.token, grant, self._since_s, keeps="all")
        # Read anew: the step may change its arguments, and the workflow may have them still.
        spec = from_json(self._asks.parts[int(wanted.p)].spec)
        self._by.run(self._ref(wanted), spec, self._record.workflow, here)
        return here

    def _passed(self) -> RunRecord:
        """The run as it is once this await is recorded."""
        record, last = self._record, self._kept[-1]
        news, let_out, entries = self._run.news(), self._run.kept_back(), self._entries()

        def told() -> None:
            let_out()
            tracing.decided(record)

        ahead = record.ahead
        if ahead is None or ahead.recorded:
            ahead = Ahead(since_s=monotonic())
        parts, outcomes = [self._part(finish) for finish in self._kept], {}
        for finish in self._kept:
            outcomes[int(finish.ref.p)] = finish.outcome
        recipe, ended_ms = self._asks.recipe, cast("int", last.ended_ms)
        # What reading the entry would give.
        decision = Decision(
            "all", "", ended_ms, self.nonce, recipe.fingerprint, outcomes, line=self._asks.line, by=last.token
        )
        passage = Passage(
            n=self._asks.n,
            seen=self._seen(),
            nonce=self.nonce,
            by=last.token,
            fingerprint=recipe.fingerprint,
            ended_ms=ended_ms,
            entry=entries[str(self._asks.n)],
            lease=cast("Any", record.lease).token,
            news=news,
            parts=parts,
            told=told,
            before=record,
        )
        if tracing.on():  # which looks at the journal as it was then
            return record.moved_on(self.nonce, entries, ahead.passed(passage))._replace(lease=record.lease)
        return record.passed(self._asks.n, self.nonce, entries, ahead.passed(passage), read=(len(parts), decision))

    def _seen(self) -> str:
        """The end of the journal before this await; mostly of one that was told to this very run (see `seen_of`)."""
        told, seen = self._run.last_decision, self._record.fields["seen"]
        return f"{told.nonce}|{told.by}" if told and "#" not in seen else seen_of(self._record, self._asks.n)

    def _part(self, finish: Finish) -> PassedPart:
        part = self._asks.parts[int(finish.ref.p)]
        what = f"{part.queue}|{part.label}"
        return PassedPart(
            finish.ref.p, what, finish.outcome, finish.began_ms, cast("int", finish.ended_ms), finish.name
        )

    def _opened(self) -> RunRecord | bool:
        """Open the await after all, with those parts as claimed that have run, and record what came of them."""
        engine, record, asks = self._by.engine, self._record, self._asks
        *others, last = self._kept
        late = [*others, last._replace(gives=asks.recipe.size)]
        wanted = self.wanted[: len(late)]
        opened = going_on(
            engine,
            record,
            lambda: opening.file_await(engine, record, self._run, asks, nonce=self.nonce, wanted=wanted, late=late),
        )
        if opened is None:
            return True
        if opened.code != "granted":
            return opening.follow(engine, record, self._run, asks, opened)
        opening.tell(engine, record, self._run)
        engine.follow_others(record.run_id, opened.endings[:-1])
        ending = opened.endings[-1]
        engine.go_on(record.run_id, ending, record.workflow)
        if ending.code == "decided":
            return record.moved_on(self.nonce, ending.entries)
        if ending.code in ("recorded", "retrying"):
            opening.send_rest(engine, record, asks, opened, wanted)
        return True


def _overran(finish: Finish, wanted: Wanted) -> bool:
    """Whether it took longer than it may: then it is as if it had not run, and it will be stopped in time."""
    return bool(wanted.timeout_ms) and cast("int", finish.ended_ms) - finish.began_ms > wanted.timeout_ms
