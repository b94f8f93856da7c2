"""A plain interpreter of plans: what a run must give, from nothing but the order of what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from simulation.plans import Join, Plan, basis_of, message, value


class Ended(NamedTuple):
    """A part's outcome is in the journal: v, e, t (its time was up) or u (unknown)."""

    n: int
    p: int
    came: str


class Late(NamedTuple):
    """An outcome that came after its join was decided; part `1u` is the undo of part 1."""

    n: int
    p: str
    came: str


class Opened(NamedTuple):
    """An await was opened; `passed`: and decided at once, of itself, whatever else was asked for."""

    n: int
    passed: bool = False


class TimeUp(NamedTuple):
    """The time of a whole await was up."""

    n: int


class Sent(NamedTuple):
    """A message was accepted."""

    value: int


class Asked(NamedTuple):
    """A cancel was accepted: `decided` an open await, or `noted` for the next one."""

    how: str
    reason: str
    code: int = 409


#: What the workflow says of an await that failed.
ERRORS = ("StepFailed", "AllFailed", "QuorumFailed", "TimedOut")

Entry = Ended | Late | Opened | TimeUp | Asked | Sent


class NotYet(Exception):  # noqa: N818
    """The log ends before the run does."""


class Mismatch(AssertionError):  # noqa: N818
    """What was recorded can't be."""


class _Failure(Exception):  # noqa: N818
    pass


class _Stopped(Exception):  # noqa: N818
    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.reason, self.code = reason, code


@dataclass
class _Owed:
    """An entry of the saga."""

    place: str
    came: str = ""


@dataclass
class Reference:
    """Interprets a plan.

    Attributes:
        opens: The log has an `Opened` for each await.
        based: What steps give depends on what was said before.
        settled: Await number of a settle -> how long the log was when it was decided.
        decided_at: After which entry of the log each await was decided.
        undos: Place and outcome of the undos that were awaited.
        reached: How many awaits of the plan were asked for.
    """

    plan: Plan
    log: Sequence[Entry]
    opens: bool = False
    based: bool = False
    settled: dict[int, int] = field(default_factory=dict)
    said: list[Any] = field(default_factory=list)
    decided_at: list[int] = field(default_factory=list)
    undos: list[tuple[str, str]] = field(default_factory=list)
    undo_failed: bool = False
    rolled_back: bool = False
    reached: int = 0

    def __post_init__(self) -> None:
        self._at, self._n, self._undone = -1, 0, 0
        self._open = self._pending = None
        self._cancels = 0
        self._late: dict[str, str] = {}
        self._unread: list[int] = []
        self._owed: list[_Owed] = []

    def state(self) -> str:
        """The final state of the run.

        Raises:
            NotYet: The log ends before.
        """
        stopped = 0
        try:
            self._body()
        except _Stopped as error:
            stopped = error.code
        except _Failure:
            stopped = 500
        if not stopped:
            return "completed"
        if self.undo_failed:
            return "compensation_failed"
        return {408: "timed_out", 409: "cancelled"}.get(stopped) or ("compensated" if self._undone else "failed")

    def _body(self) -> None:
        plan = self.plan
        try:
            for join in plan.joins[: plan.covered]:
                self._await(join)
            if plan.raises:
                raise _Failure  # noqa: TRY301  # as the workflow does
        except (_Failure, _Stopped):
            if plan.strategy:
                self._rollback()
            raise
        for join in plan.joins[plan.covered :]:
            self._await(join)

    # --- the log ------------------------------------------------------------------

    def _next(self) -> Entry:
        if self._at + 1 >= len(self.log):
            raise NotYet
        self._at += 1
        entry = self.log[self._at]
        if isinstance(entry, Late):
            self._late.setdefault(f"{entry.n}.{entry.p}", entry.came)
        elif isinstance(entry, Opened):
            self._open = entry.n
        elif isinstance(entry, Sent):
            self._unread.append(entry.value)
        elif isinstance(entry, Asked):
            self._cancels += 1
            if entry.how == "noted":
                self._pending = entry
        return entry

    def _number(self) -> int:
        self._n += 1
        return self._n - 1

    def _stopped(self, n: int, entry: Entry) -> _Stopped | None:
        """What a cancel does to await n, which undoes nothing."""
        if isinstance(entry, Asked):
            if entry.how == "decided" or not self.opens:
                self._pending = None
                return _Stopped(entry.reason, entry.code)
            if self._open == n:
                raise Mismatch(f"a cancel was noted while await {n} was open")
        elif isinstance(entry, Opened) and not entry.passed and (self._pending or self._cancels > 1):
            asked, self._pending = self._pending or Asked("", "cancelled again"), None
            return _Stopped(asked.reason, asked.code)
        return None

    # --- awaits -------------------------------------------------------------------

    def _await(self, join: Join) -> None:
        n = self._number()
        self.reached = n + 1
        owed = [_Owed(f"{n}.{p}") for p in range(len(join.good))] if join.undone else []
        self._owed += owed
        basis = basis_of(self.said) if self.based else 0
        came: dict[int, str] = {}
        self._got: dict[int, int] = {}
        try:
            said = self._answer(n, join, basis, came)
        except _Stopped as stopped:
            said = stopped
        self.decided_at.append(self._at)
        for p, entry in enumerate(owed):
            entry.came = came.get(p, "")
        if isinstance(said, _Stopped):
            if not self.plan.catches:
                raise said
            said = ["Cancelled", said.reason]
        if join.fatal and isinstance(said, list) and said[:1] and said[0] in ERRORS:
            raise _Failure
        self.said.append(said)

    def _answer(self, n: int, join: Join, basis: int, came: dict[int, str]) -> Any:
        while True:
            entry = self._next()
            stopped = self._stopped(n, entry)
            if stopped:
                raise stopped
            if isinstance(entry, TimeUp) and entry.n == n:
                return ["TimedOut"]
            if not isinstance(entry, Ended):
                continue
            if entry.n != n or (self.opens and self._open != n):
                raise Mismatch(f"an outcome of await {entry.n} counted while {n} was open")
            _check(join, entry)
            came[entry.p] = entry.came
            if join.step(entry.p) == "receive" and entry.came == "v":
                if not self._unread:
                    raise Mismatch(f"{n}.{entry.p} received a message that nobody sent")
                self._got[entry.p] = self._unread.pop(0)
            answer = verdict(n, join, came, basis, self._got)
            if answer is not None:
                return answer[0]

    # --- the saga -----------------------------------------------------------------

    def _rollback(self) -> None:
        if not self._owed:
            return
        self.rolled_back = True
        n = self._number()
        if n not in self.settled:
            raise NotYet
        while self._at + 1 < self.settled[n]:
            self._next()
        self.decided_at.append(self._at)
        late = dict(self._late)
        for entry in reversed(self._owed):
            came = self._known(entry, late)
            if not came or (came == "e" and self.plan.strategy == "compensate_completed"):
                continue
            how = self._undo()
            self.undos.append((entry.place, how))
            if how == "v":
                self._undone += 1
                continue
            self.undo_failed = True
            if self.plan.strategy != "best_effort":
                raise _Failure

    def _known(self, entry: _Owed, late: dict[str, str]) -> str:
        twin = late.get(f"{entry.place}u")
        if twin:
            self._undone += twin == "v"
            self.undo_failed |= twin != "v"
            return ""
        if entry.came:
            return late.get(entry.place, "t") if entry.came == "t" else entry.came
        return late.get(entry.place, "")

    def _undo(self) -> str:
        n = self._number()
        while True:
            entry = self._next()
            if isinstance(entry, Asked) and entry.how == "decided":
                raise Mismatch(f"a cancel decided undo {n}")
            if isinstance(entry, Ended):
                if entry.n != n:
                    raise Mismatch(f"an outcome of await {entry.n} counted while undo {n} was open")
                self.decided_at.append(self._at)
                return entry.came


def _check(join: Join, entry: Ended) -> None:
    if join.kind != "sleep" and entry.came == ("e" if join.good[entry.p] else "v"):
        raise Mismatch(f"{entry.n}.{entry.p} ended with {entry.came}, good is {join.good[entry.p]}")


def verdict(  # noqa: C901, PLR0911  # a branch a kind
    n: int, join: Join, came: dict[int, str], basis: int = 0, got: Mapping[int, int] = MappingProxyType({})
) -> tuple[Any] | None:
    """What await n gives once these parts have ended (first come first), in a tuple; None: it goes on.

    Args:
        got: The messages that its parts have received.
    """
    size = len(join.good)
    good = [p for p, how in came.items() if how == "v"]
    bad = sorted(set(came) - set(good))
    failures = [[p, {"e": message(n, p)}.get(came[p], came[p])] for p in bad]
    based = [0 if join.step(p) == "promise" else basis for p in range(size)]
    values = [got.get(p, based[p] + value(n, p)) if p in good else None for p in range(size)]
    match join.kind:
        case "sleep":
            return (None,) if good else None
        case "await" | "fan_out_fail" | "batch":
            if bad:
                return (["StepFailed", failures],)
            if len(good) == size:
                return (values[0] if join.kind == "await" else values,)
        case "fan_out" | "settled":
            if len(came) == size:
                return ([values, failures],)
        case "race":
            if good:
                return ([good[0], values[good[0]]],)
            if len(bad) == size:
                return (["AllFailed", failures],)
        case _:
            if len(good) == join.need:
                return ([[p, values[p]] for p in good],)
            if len(bad) > size - join.need:
                return (["QuorumFailed", failures],)
    return None
