"""How the demo's orders stand, from the events of their runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from status import Event, State
from status.states import FINAL

#: An order waits for its turn, runs, or has ended in one of these ways; in this order they are shown.
ENDS = {State.COMPLETED: "completed", State.FAILED: "refused", State.COMPENSATED: "compensated"}

CHARGES = ("payment-stripe", "payment-paypal")


@dataclass(slots=True)
class Row:
    """One order, as it stands."""

    order_id: str
    run_id: str
    phase: str = ""
    progress: float = 0.0
    state: State = State.PENDING
    doing: str = ""  #: the step that began last
    submitted: datetime | None = None
    ended: datetime | None = None

    @property
    def runs(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state not in FINAL and self.state is not State.PENDING

    @property
    def duration_s(self) -> float:
        """From submit to end; 0 while that is not known."""
        return (self.ended - self.submitted).total_seconds() if self.ended and self.submitted else 0.0


@dataclass(slots=True)
class Tally:
    """All orders, as they stand. Written by one thread; others may read it meanwhile."""

    rows: dict[str, Row]  #: by run id, in the order of the file
    steps: int = 0  #: that have ended, in whatever way
    first: datetime | None = None
    last: datetime | None = None
    submitted: int = 0
    _counts: Counter[State] = field(default_factory=Counter)

    @classmethod
    def of(cls, order_ids: Iterable[str]) -> Tally:
        """Of orders that are not submitted yet."""
        rows = {run_id(order_id): Row(order_id, run_id(order_id)) for order_id in order_ids}
        return cls(rows, _counts=Counter({State.PENDING: len(rows)}))

    def apply(self, event: Event) -> None:
        """Take in what happened."""
        row = self.rows[event.run_id]
        subject, _, verb = event.kind.partition(".")
        if subject == "step":
            self._step(row, verb, event)
        elif event.kind == "saga.undoing" and "saga" in event.detail:
            # Without a saga it is a race's loser that succeeded too late, of a run that goes on or has even ended.
            self._to(row, State.COMPENSATING)
        elif event.kind == "run.submitted":
            row.submitted = event.at
            self.first = min(self.first or event.at, event.at)
        elif event.kind == "run.status" and "progress" in event.detail:
            row.phase, row.progress = event.name, float(event.detail["progress"])
        elif subject == "run" and verb in FINAL:
            row.ended, row.doing = event.at, ""
            self.last = max(self.last or event.at, event.at)
            self._to(row, State(verb))

    def _step(self, row: Row, verb: str, event: Event) -> None:
        if verb == "started":
            row.doing = event.name
            if row.state is State.PENDING:
                self._to(row, State.RUNNING)
        elif verb in {"done", "failed"}:
            self.steps += 1

    def _to(self, row: Row, state: State) -> None:
        self._counts[row.state] -= 1
        self._counts[state] += 1
        row.state = state

    def count(self, *states: State) -> int:
        """How many orders are in one of these states."""
        return sum(self._counts[state] for state in states)

    @property
    def ended(self) -> int:
        """How many orders have ended."""
        return self.count(*FINAL)

    @property
    def unfinished(self) -> list[Row]:
        """Those that have not."""
        return [row for row in self.rows.values() if row.state not in FINAL]

    @property
    def elapsed_s(self) -> float:
        """From the first submit to the last end so far."""
        return (self.last - self.first).total_seconds() if self.first and self.last else 0.0

    @property
    def orders_per_s(self) -> float:
        """Of those that have ended."""
        return self.ended / self.elapsed_s if self.elapsed_s else 0.0


def run_id(order_id: str) -> str:
    """The run of an order."""
    return f"order-{order_id}"


def path(row: Row, history: Sequence[Event], error: str) -> str:
    """Which way an order took, in a few words.

    Args:
        history: Of its run, what came after its end included.
        error: Of its run, if it has one.
    """
    undone = [event.name.removeprefix("undo ") for event in history if event.kind == "saga.undone"]
    if row.state is State.COMPLETED:
        return "; ".join([f"paid by {_winner(history)}", *_incidents(history), *_late(undone)])
    if row.state is State.FAILED:
        return f"{error}{_which_check(error, history)}"
    return f"{error} → undone: {', '.join(undone) or 'nothing'}"


def _winner(history: Sequence[Event]) -> str:
    paid = (e.name for e in history if e.kind == "step.done" and e.name in CHARGES and not e.detail)
    return next(paid, "?").removeprefix("payment-")


def _incidents(history: Sequence[Event]) -> list[str]:
    failed = [event.name for event in history if event.kind == "step.failed"]
    retried = Counter(event.name for event in history if event.kind == "step.retrying")
    return [f"{name} failed" for name in failed] + [f"{name} tried {n + 1} times" for name, n in retried.items()]


def _late(undone: Sequence[str]) -> list[str]:
    return [f"late {name.removeprefix('charge ')} undone" for name in undone]


def _which_check(error: str, history: Sequence[Event]) -> str:
    """The name of the check behind `validation 2 failed`."""
    found = re.search(r"validation (\d+) failed", error)
    asked = [e for e in history if e.kind == "join.opened" and str(e.detail.get("detail")).startswith("fan_out_fail(")]
    if found is None or not asked:
        return ""
    names = str(asked[0].detail["detail"]).partition("(")[2].rstrip(")").split(", ")
    return f" ({names[int(found[1])]})"
