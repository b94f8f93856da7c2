"""What a reader of the status gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from status.errors import ErrorInfo
from status.states import FINAL, State

#: How the timeline calls a promise, and who waits for a message of a channel: this, and its name.
PROMISE, CHANNEL = "promise ", "channel "


@dataclass(frozen=True)
class StepStatus:
    """One step of a run: a call that a worker makes, with its retries.

    Attributes:
        step_id: `run/await.part`.
        state: See `status.states.StepState`.
        attempt: The one that runs now, or ran last; 1 is the first.
        queue: Where its messages go.
        waits: Why nobody has begun it, if a worker has said so.
    """

    step_id: str
    name: str
    state: str
    attempt: int
    queue: str
    started_at: datetime | None
    finished_at: datetime | None
    error: ErrorInfo | None
    child_run_id: str | None = None
    waits: str | None = None

    @property
    def promise(self) -> str | None:
        """The promise that this part waits for, or waited for; None: it is a step or a sleep."""
        return self._outside(PROMISE)

    @property
    def channel(self) -> str | None:
        """The channel whose next message this part waits for, or waited for; None: it is something else."""
        return self._outside(CHANNEL)

    def _outside(self, kind: str) -> str | None:
        return None if self.queue or not self.name.startswith(kind) else self.name.removeprefix(kind)


@dataclass(frozen=True)
class RunStatus:
    """A run as it stands.

    Attributes:
        phase: As last given to `run.update_status`; `progress` too, from 0 to 1.
        metadata: What else was given to it, merged.
        started_at: When it was submitted.
        steps: In the order of awaits and parts; () in a listing.
        parent: The step that it is a child of, or None.
        round: 1 is the first; each `run.restart` begins another, and `steps` are those of this one.
    """

    run_id: str
    workflow: str
    state: State
    phase: str
    progress: float
    metadata: Mapping[str, Any]
    error: ErrorInfo | None
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    steps: tuple[StepStatus, ...] = ()
    parent: str | None = None
    round: int = 1

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in FINAL


@dataclass(frozen=True)
class Event:
    """Something that happened to a run; the kinds are listed in docs/reference.md."""

    run_id: str
    at: datetime
    kind: str
    name: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Entered:
    """What a run entered in a saga, as the saga's log has it.

    Attributes:
        key: Of the entry in the log.
        state: As the log calls it: `begun`, `done`, `undoing`, `undone`, ...
        undo: The task that undoes it.
        place: `await.part` of the action; '' if there is none.
        owed: Whether it may still have to be undone.
    """

    key: str
    saga: str
    name: str
    state: str
    undo: str
    place: str
    error: str | None
    owed: bool


@dataclass(frozen=True)
class Page:
    """Some of the runs, newest first; `cursor` asks for the next page, None: there is none."""

    runs: tuple[RunStatus, ...]
    cursor: str | None


def moment(ms: str | float | None) -> datetime | None:
    """A time in ms since 1970, or nothing, as a datetime in UTC."""
    return datetime.fromtimestamp(float(ms) / 1000, UTC) if ms else None


def error_to_json(error: ErrorInfo) -> str:
    """An error as the journal keeps it."""
    return json.dumps(asdict(error), separators=(",", ":"))


def error_from_json(text: str) -> ErrorInfo:
    """An error from the journal."""
    return _error(json.loads(text))


def _error(fields: Mapping[str, Any]) -> ErrorInfo:
    cause = fields.get("cause")
    return ErrorInfo(
        step=fields.get("step"),
        error_type=fields.get("error_type", ""),
        message=fields.get("message", ""),
        code=int(fields.get("code", 500)),
        cause=_error(cause) if cause else None,
        attempts=int(fields.get("attempts", 1)),
        traceback=fields.get("traceback", ""),
        bases=tuple(fields.get("bases", ())),
    )
