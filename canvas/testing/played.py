"""A run in a test: let time go by, say what the outside says, and look at what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from canvas.handle import RunHandle
from canvas.promises import Promise
from canvas.testing.worker import Attempt
from status import api
from status.errors import RunFailed, TimedOut
from status.models import Event, RunStatus
from status.states import FINAL, Answer, State

if TYPE_CHECKING:
    from canvas.testing.workflows import Workflows

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sends(Protocol[T_contra]):
    """A channel."""

    def send(self, run_id: str, value: T_contra, /) -> Any:
        """Give a run a message."""


class PlayedRun(Generic[R_co]):
    """Made by `Workflows.start`.

    Attributes:
        run_id: The run's id.
        handle: What `.submit(...)` gave.
    """

    def __init__(self, flows: Workflows, handle: RunHandle[R_co]) -> None:
        self.handle = handle
        self.run_id = handle.run_id
        self._flows = flows

    def __repr__(self) -> str:
        return f"PlayedRun({self.run_id!r}: {self.state})"

    # --- going on -----------------------------------------------------------------

    def result(self) -> R_co:
        """What the workflow returns. Lets as much time go by as that takes: retries, time limits, sleeps.

        Raises:
            RunFailed, RunCancelled: It ended without a result; or it is parked (state `suspended`).
            TimedOut: Nothing more will happen: it waits for the outside; the message says for what.
        """
        self.end()
        return self.handle.result(timeout_s=1)

    def end(self) -> State:
        """Let as much time go by as it takes until the run has ended, however it does. Gives its final state.

        Raises:
            RunFailed: It is parked: its code does not fit.
            TimedOut: Nothing more will happen: it waits for the outside.
        """
        self._flows.play_until(lambda: self.state in FINAL or self._is_parked)
        status = self.status
        if status.state in FINAL:
            return status.state
        if self._is_parked:
            raise RunFailed(self.run_id, status.state, status.error)
        raise TimedOut(f"run {self.run_id} is {status.state}, and nothing more will happen: {_waits_for(status)}")

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time go by, for all runs. See `Workflows.advance`."""
        self._flows.advance(days=days, hours=hours, minutes=minutes, seconds=seconds)

    @overload
    def resolve(self, promise: Promise[T], value: T) -> Answer: ...
    @overload
    def resolve(self, promise: str, value: Any) -> Answer: ...
    def resolve(self, promise: Promise[Any] | str, value: Any) -> Answer:
        """Give a promise its value, and let the run go on.

        Returns:
            `accepted`, `late` or `unknown`, as outside of tests.
        """
        if isinstance(promise, str):
            return Answer(self._flows.ask(lambda: api.resolve_promise(self.run_id, promise, value)))
        return self._flows.ask(lambda: promise.resolve(self.run_id, value))

    def reject(self, promise: Promise[Any] | str, error: str, *, code: int = 500) -> Answer:
        """Let a promise fail, and let the run go on."""
        name = promise if isinstance(promise, str) else promise.name
        return Answer(self._flows.ask(lambda: api.reject_promise(self.run_id, name, error, code=code)))

    def send(self, channel: Sends[T], value: T) -> Any:
        """Send the run a message, and let it go on."""
        return self._flows.ask(lambda: channel.send(self.run_id, value))

    def cancel(self, reason: str = "") -> None:
        """Cancel the run, and let it do what it does then."""
        self._flows.ask(lambda: api.cancel(self.run_id, reason))

    def retry(self) -> None:
        """Take a failed run up again, as `status.retry` does; fakes go on where they were."""
        self._flows.ask(lambda: api.retry(self.run_id))

    # --- looking ------------------------------------------------------------------

    @property
    def status(self) -> RunStatus:
        """As `status.get_status` gives it."""
        return self.handle.status()

    @property
    def state(self) -> State:
        """Where it is."""
        return self.status.state

    @property
    def phase(self) -> str:
        """As last given to `run.update_status`."""
        return self.status.phase

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else was given to it."""
        return self.status.metadata

    @property
    def events(self) -> tuple[Event, ...]:
        """All that happened to it, oldest first, as `status.history` gives it; `.at` is virtual time."""
        return api.history(self.run_id)

    @property
    def phases(self) -> list[str]:
        """The phases it went through, in order."""
        said = [event.name for event in self.events if event.kind == "run.status" and event.name != "parked"]
        return [phase for before, phase in zip(["", *said], said, strict=False) if phase not in ("", before)]

    @property
    def story(self) -> list[str]:
        """Its events as short texts: `step.done shop.pay`, `saga.undone charge`, `run.completed`."""
        return [f"{event.kind} {event.name}".rstrip() for event in self.events]

    @property
    def undone(self) -> list[str]:
        """The entries of sagas that were undone, in that order."""
        return [event.name for event in self.events if event.kind == "saga.undone"]

    def attempts(self, step: Any = None) -> list[Attempt]:
        """The attempts of its steps, in the order in which they began.

        Args:
            step: A step, its name, or what a call was `.named(...)`; None: of all steps.
        """
        return self._flows.attempts(step, run_id=self.run_id)

    def calls(self, step: Any = None) -> list[tuple[Any, ...]]:
        """The arguments of its steps' calls, each once however often it was tried.

        Args:
            step: As in `attempts`. Keyword arguments follow as a dict, if there are any.
        """
        firsts = {seen.step_id: seen for seen in reversed(self.attempts(step))}
        return [(*seen.args, seen.kwargs) if seen.kwargs else seen.args for seen in reversed(firsts.values())]

    def assert_in_order(self, *story: str) -> None:
        """Assert that these happened in this order; anything else may have happened in between.

        Args:
            story: As in `story`.
        """
        __tracebackhide__ = True
        happened = self.story
        rest = iter(happened)
        for number, wanted in enumerate(story):
            if wanted not in rest:
                after = f" after {story[number - 1]!r}" if number else ""
                lines = "\n  ".join(happened)
                raise AssertionError(f"{wanted!r} did not happen{after}; run {self.run_id} was:\n  {lines}")

    @property
    def _is_parked(self) -> bool:
        return self._flows.is_parked(self.run_id)


def _waits_for(status: RunStatus) -> str:
    open_ = [step for step in status.steps if step.finished_at is None]
    for step in reversed(open_):
        if step.promise:
            return f"it waits for the promise {step.promise!r}: run.resolve({step.promise!r}, value)"
        if step.name.startswith("channel ") and not step.queue:
            return f"it waits for a message on {step.name}: run.send(channel, value)"
    running = [step.name for step in open_ if step.state == "running"]
    return f"{', '.join(running)} hangs, and nothing limits its time" if running else "it waits for the outside"
