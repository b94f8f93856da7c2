"""The life of a run and of a step.

pending ──▶ running ◀──▶ suspended
              │  │          │
              │  └──▶ cancelling ──┐
              ▼                    ▼
              └─────────▶ compensating
──▶ completed | failed | compensated | compensation_failed | cancelled | timed_out
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a run is. The order below is the order of life."""

    PENDING = "pending"  #: submitted; no turn has opened anything yet
    RUNNING = "running"  #: steps are on their way
    SUSPENDED = "suspended"  #: waits for the outside, a timer or (with `error` set) for other code
    COMPENSATING = "compensating"  #: undoes run, newest first
    CANCELLING = "cancelling"  #: `Cancelled` was, or is about to be, thrown into it
    COMPLETED = "completed"  #: final: the workflow returned
    FAILED = "failed"  #: final: it raised, and nothing was undone
    COMPENSATED = "compensated"  #: final: it raised, and every undo succeeded
    COMPENSATION_FAILED = "compensation_failed"  #: final: an undo gave up
    CANCELLED = "cancelled"  #: final: as asked
    TIMED_OUT = "timed_out"  #: final: its time was up


FINAL = frozenset(
    {
        State.COMPLETED, State.FAILED, State.COMPENSATED, State.COMPENSATION_FAILED, State.CANCELLED, State.TIMED_OUT,
    }
)  # fmt: skip


class Answer(StrEnum):
    """What became of a value from outside."""

    ACCEPTED = "accepted"  #: it counts, now or when it is awaited
    LATE = "late"  #: the promise has a value already, or the run has ended
    UNKNOWN = "unknown"  #: no such run


class StepState(StrEnum):
    """Where a step is."""

    WAITING = "waiting"  #: on a queue, or for its time
    RUNNING = "running"  #: a worker holds its claim
    RETRYING = "retrying"  #: an attempt failed; the next is on the timers
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  #: its join was decided without it
