"""Where this thread is: in a step, in a workflow, or outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from time import monotonic
from typing import Any

from canvas.payload import compact
from status.errors import ConfigError

#: How often `cancelled` asks Redis at most.
ASK_EVERY_S = 0.1


class _Here(threading.local):
    step: CurrentStep | None = None
    workflow: str | None = None
    turn: tuple[str, str] | None = None


_here = _Here()


@dataclass
class CurrentStep:
    """The step that runs in this thread.

    Attributes:
        step_id: `run/await.part`, for people.
        idempotency_key: The same for every attempt of this step: give it to services that honour one.
        attempt: 1 is the first.
        deadline: When this attempt's time is up, or None.
        undoes: In a compensation: the idempotency key of what it undoes.
        step_name: The Celery task's name.
        arguments: Its arguments, as JSON values.
    """

    run_id: str
    step_id: str
    idempotency_key: str
    attempt: int = 1
    deadline: datetime | None = None
    undoes: str | None = None
    step_name: str = ""
    arguments: Any = None
    ask_stopped: Callable[[], bool] = field(default=lambda: False, repr=False)
    _stopped: bool = field(default=False, repr=False)
    _asked_s: float = field(default=float("-inf"), repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this attempt: its join was decided, its run cancelled, or its time is up."""
        if not self._stopped and monotonic() - self._asked_s >= ASK_EVERY_S:
            self._stopped = self.ask_stopped()
            self._asked_s = monotonic()
        return self._stopped

    @property
    def arguments_digest(self) -> str:
        """A short fingerprint of the step's name and arguments."""
        return sha256(f"{self.step_name}{compact(self.arguments)}".encode()).hexdigest()[:32]


def current_step() -> CurrentStep:
    """The step that runs in this thread.

    Raises:
        ConfigError: None does.
    """
    if _here.step is None:
        raise ConfigError(
            "current_step() is there only while a step runs; in a test, use canvas.context.running_as(...)"
        )
    return _here.step


def is_in_step() -> bool:
    """Whether a step runs in this thread: what it calls by itself, be it a step, is a function there."""
    return _here.step is not None


def leave_step() -> None:
    """No step runs in this thread any more: it was cut, perhaps just where it would have said so itself."""
    _here.step = None


# Classes, and not generators with `@contextmanager`: these are entered at each step and at each await.
class running_as:  # noqa: N801  # reads as a function
    """Let `current_step()` answer `step` in this thread."""

    def __init__(self, step: CurrentStep) -> None:
        self._step, self._before = step, _here.step

    def __enter__(self) -> CurrentStep:
        self._before, _here.step = _here.step, self._step
        return self._step

    def __exit__(self, *_: object) -> None:
        _here.step = self._before


class in_workflow:  # noqa: N801  # reads as a function
    """Say that this thread replays a workflow."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = _here.workflow, _here.step
        _here.workflow, _here.step = self._name, None

    def __exit__(self, *_: object) -> None:
        _here.workflow, _here.step = self._before


@contextmanager
def taking_turn(run_id: str, workflow: str) -> Iterator[None]:
    """Say that this thread takes a turn of a run."""
    before, _here.turn = _here.turn, (run_id, workflow)
    try:
        yield
    finally:
        _here.turn = before


def place_here() -> dict[str, str | int]:
    """The run and the step of this thread, for log lines; {} if it is in neither."""
    step = _here.step
    if step is not None:
        return {"run_id": step.run_id, "step_id": step.step_id, "step": step.step_name, "attempt": step.attempt}
    if _here.turn is not None:
        return {"run_id": _here.turn[0], "workflow": _here.turn[1]}
    return {}


def refuse_in_workflow(what: str, instead: str) -> None:
    """Raise ConfigError if this thread replays a workflow."""
    if _here.workflow is not None:
        raise ConfigError(f"{what} in workflow {_here.workflow} would happen at each replay: {instead}")


def workflow_here() -> str | None:
    """The workflow that this thread replays, if it does."""
    return _here.workflow
