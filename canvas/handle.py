"""A handle on a run: its result, its status, and a way to stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from canvas import engine as engines
from canvas.context import refuse_in_workflow
from status import here
from status.errors import RunCancelled, RunFailed, TimedOut
from status.models import Event, RunStatus
from status.states import FINAL, State

if TYPE_CHECKING:
    from celery import Celery

    from status.reading import Reader

R_co = TypeVar("R_co", covariant=True)


class RunHandle(Generic[R_co]):
    """Made by `.submit(...)` and `workflow.handle(run_id)`.

    Attributes:
        run_id: The run's id.
    """

    def __init__(self, run_id: str, app: Celery, decode: Callable[[str], Any]) -> None:
        self.run_id = run_id
        self._app = app
        self._decode = decode

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id!r})"

    @property
    def _reader(self) -> Reader:
        return here.reader()

    def result(self, timeout_s: float | None = None) -> R_co:
        """What the workflow returned, waiting for it.

        Raises:
            TimedOut: It had not ended after `timeout_s` seconds; it goes on.
            RunFailed: It ended without a result.
            RunCancelled: ... because it was cancelled.
            RunNotFound: There is no such run.
            ConfigError: In a workflow.
        """
        refuse_in_workflow("handle.result()", "await the call itself")
        state, text, error = self._reader.wait(self.run_id, timeout_s)
        if state is State.COMPLETED:
            return cast("R_co", self._decode(text))
        kind = RunCancelled if state is State.CANCELLED else RunFailed
        raise kind(self.run_id, state, error)

    def status(self) -> RunStatus:
        """The run as it stands, with its steps.

        Raises:
            RunNotFound: There is no such run.
        """
        return self._reader.status(self.run_id)

    def watch(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Its events from the first on, then as they happen; ends with the run.

        Raises:
            RunNotFound: There is no such run.
            TimedOut: `timeout_s` is over and the run is not.
        """
        return self._reader.watch(self.run_id, timeout_s)

    def wait_for(self, condition: Callable[[RunStatus], bool], timeout_s: float | None = None) -> RunStatus:
        """The first status that fulfils `condition`, looked at whenever something happens.

        Raises:
            TimedOut: `timeout_s` is over, or the run has ended, and it was never fulfilled.
        """
        end_s = None if timeout_s is None else monotonic() + timeout_s
        for _ in self.watch(timeout_s):
            status = self.status()
            if condition(status):
                return status
            if status.state in FINAL or (end_s is not None and monotonic() > end_s):
                break
        raise TimedOut(f"run {self.run_id} is {self.status().state} and the condition was never fulfilled")

    def cancel(self, reason: str = "") -> None:
        """Ask the run to stop: `Cancelled` is thrown, once, at its pending await. A run that has ended stays as it is.

        Raises:
            RunNotFound: There is no such run.
        """
        refuse_in_workflow("handle.cancel()", "let a step do it")
        engines.of(self._app).cancel(self.run_id, reason)
