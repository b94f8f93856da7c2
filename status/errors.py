"""Every error celeriac raises.

OrchestrationError
├── ConfigError            a declaration or a setting is wrong
├── PayloadError           a value can't be carried, or does not fit its annotation
├── NotAwaitable           a workflow awaited something that is not ours (also a TypeError)
├── NonDeterministic       the workflow's text no longer fits its journal
├── UnknownWorkflow        no workflow of that name is registered here
├── TerminalError          raised by user code: never retried; `.code`
├── RetryAfter             raised by a step: try again in `.delay_s` seconds
├── StepFailed             a step failed for good; `.step`, `.attempts`, `.is_a(...)`
│   └── StepTimeout        ... because its time was up (also a TimedOut)
├── TimedOut               an await's time was up (also a TimeoutError)
├── AllFailed              every part of a race failed; `.errors`
│   └── QuorumFailed       too many parts failed
├── RunFailed              `handle.result()` of a run that did not complete
│   └── RunCancelled       ... because it was cancelled
├── RunConflict            the run id is taken by a run with other arguments
├── RunNotFound            no run has that id (also a LookupError)
├── RetryRefused           `retry` of a run that did not fail, or whose undos have begun
├── CompensationFailed     an undo gave up
├── LogUnavailable         what must be on record before a run goes on can't be written
└── StoreUnavailable       Redis did not answer

Cancelled (BaseException)  thrown once at the pending await of a cancelled run
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


class OrchestrationError(Exception):
    """The root of all of them."""


class ConfigError(OrchestrationError):
    """A declaration or a setting is wrong; the message says which and what to write."""


class PayloadError(OrchestrationError):
    """A value can't be carried as JSON, or does not fit its annotation."""


class NotAwaitable(OrchestrationError, TypeError):  # noqa: N818
    """A workflow awaited something that is neither a call nor a join."""


class NonDeterministic(OrchestrationError):  # noqa: N818
    """The workflow asked for something other than what its journal has at that place."""


class UnknownWorkflow(OrchestrationError):  # noqa: N818
    """No workflow of that name is registered in this process."""


class TimedOut(OrchestrationError, TimeoutError):  # noqa: N818
    """The time of an await was up."""


class TerminalError(OrchestrationError):
    """Raised by user code: this will not get better by trying again.

    Args:
        message: What went wrong, for a person.
        code: An HTTP-like code that the caller of the run sees.
    """

    def __init__(self, message: str, code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.code = code

    def __reduce__(self) -> tuple[type[TerminalError], tuple[str, int]]:
        return type(self), (self.message, self.code)


class RetryAfter(OrchestrationError):  # noqa: N818
    """Raised by a step: try again in `delay_s` seconds. It counts as an attempt."""

    def __init__(self, delay_s: float, message: str = "") -> None:
        super().__init__(message or f"try again in {delay_s} s")
        self.delay_s = delay_s
        self.message = message

    def __reduce__(self) -> tuple[type[RetryAfter], tuple[float, str]]:
        return type(self), (self.delay_s, self.message)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as a value: what the journal keeps and what a status shows.

    Attributes:
        step: The step it came from, or None if the workflow raised it.
        error_type: Its class, as `module.QualName` (builtins without a module).
        code: 500 unless the error had one; time-outs 408, cancelled 409.
        cause: What it was raised from.
        bases: The names of all classes it is an instance of, for `is_a`.
    """

    step: str | None
    error_type: str
    message: str
    code: int
    cause: ErrorInfo | None = None
    attempts: int = 1
    traceback: str = ""
    bases: tuple[str, ...] = field(default=(), repr=False)

    def __iter__(self) -> Iterator[ErrorInfo]:
        """This error and then its causes."""
        link: ErrorInfo | None = self
        while link is not None:
            yield link
            link = link.cause


class StepFailed(OrchestrationError):  # noqa: N818
    """A step failed for good.

    Attributes:
        step: Its name (its label where the call was `.named(...)`).
        index: Its place in the join.
        attempts: How often it ran.
        traceback: The text of the last attempt's traceback.
    """

    def __init__(self, info: ErrorInfo, index: int = 0) -> None:
        self.info = info
        self.index = index
        self.step = info.step or ""
        self.error_type = info.error_type
        self.message = info.message
        self.code = info.code
        self.attempts = info.attempts
        self.traceback = info.traceback
        tried = f" after {info.attempts} attempts" if info.attempts > 1 else ""
        super().__init__(f"{self.step} failed{tried}: {info.error_type.rpartition('.')[2]}: {info.message}")

    def is_a(self, error: type[BaseException]) -> bool:
        """Whether the step's error, or a cause of it, is an instance of `error`."""
        wanted = qualified_name(error)
        return any(wanted == link.error_type or wanted in link.bases for link in self.info)

    def __reduce__(self) -> tuple[type[StepFailed], tuple[ErrorInfo, int]]:
        return type(self), (self.info, self.index)


class StepTimeout(StepFailed, TimedOut):
    """A step's time was up: its attempts' limit, or that of `.within(...)`."""


class AllFailed(OrchestrationError):  # noqa: N818
    """Every part of a race failed."""

    def __init__(self, errors: tuple[StepFailed, ...]) -> None:
        super().__init__("all failed: " + "; ".join(str(error) for error in errors))
        self.errors = errors

    def __reduce__(self) -> tuple[type[AllFailed], tuple[Any, ...]]:
        return type(self), (self.errors,)


class QuorumFailed(AllFailed):
    """So many parts failed that the wished number can't be reached."""


class RunFailed(OrchestrationError):  # noqa: N818
    """Raised by `handle.result()`: the run ended without a result."""

    def __init__(self, run_id: str, state: str, error: ErrorInfo | None) -> None:
        self.run_id = run_id
        self.state = state
        self.error = error
        self.error_type = error.error_type if error else ""
        self.message = error.message if error else ""
        self.code = error.code if error else 500
        where = f" (in {error.step})" if error and error.step else ""
        super().__init__(f"run {run_id} {state}: {self.error_type.rpartition('.')[2]}: {self.message}{where}")

    def __reduce__(self) -> tuple[type[RunFailed], tuple[Any, ...]]:
        return type(self), (self.run_id, self.state, self.error)


class RunCancelled(RunFailed):
    """Raised by `handle.result()` of a cancelled run."""


class RunConflict(OrchestrationError):  # noqa: N818
    """The run id is taken by a run of another workflow or with other arguments."""


class RunNotFound(OrchestrationError, LookupError):  # noqa: N818
    """No run has that id, or its time of retention is over."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run has the id {run_id!r}: it was never submitted here, or its retention is over")
        self.run_id = run_id

    def __reduce__(self) -> tuple[type[RunNotFound], tuple[str]]:
        return type(self), (self.run_id,)


class RetryRefused(OrchestrationError):  # noqa: N818
    """A run can't be taken up again: it goes on, did not fail, or has begun to undo what it did."""


class CompensationFailed(OrchestrationError):  # noqa: N818
    """An undo gave up; the rollback stopped there."""


class LogUnavailable(OrchestrationError):  # noqa: N818
    """What must be on record before a run goes on can't be written now. The run waits, and goes on by itself."""


class StoreUnavailable(OrchestrationError):  # noqa: N818
    """Redis did not answer; nothing was recorded, or what was is safe to send again."""


class Cancelled(BaseException):
    """Thrown once at the pending await of a run that is cancelled or past its time.

    A `BaseException`, so that `except Exception` in a workflow does not swallow it by accident.
    """

    def __init__(self, reason: str = "", code: int = 409) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


def qualified_name(error: type[BaseException]) -> str:
    """`module.QualName` of a class; builtins go without their module."""
    if error.__module__ == "builtins":
        return error.__qualname__
    return f"{error.__module__}.{error.__qualname__}"
