"""Promises: parts of a join that the outside world completes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from canvas.channels import Receive
from canvas.context import refuse_in_workflow
from canvas.outcomes import Decision
from canvas.payload import Adapter
from canvas.waitables import Join, Part, checked_s
from status import promises
from status.errors import ConfigError, TimedOut
from status.models import PROMISE
from status.records import NewPart
from status.states import Answer

if TYPE_CHECKING:
    from canvas.engine import Engine

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Promise(Part[T], Generic[T]):
    """One for each run and name: the first value stays, and every await of it sees that value.

    Attributes:
        name: What the outside calls it.
    """

    state = "suspended"

    def __init__(self, name: str, type: type[T]) -> None:  # noqa: A002  # as one says it
        self.name = promises.check_name(name)
        self._adapter = Adapter(type, f"promise {name}")

    def __repr__(self) -> str:
        return f"promise({self.name!r})"

    def resolve(self, run_id: str, value: T) -> Answer:
        """Give it its value, in one run; also before that run awaits it.

        Returns:
            `accepted`; `late`: it has a value already, or the run has ended; `unknown`: there is no such run.

        Raises:
            PayloadError: The value does not fit its type.
            ConfigError: In a workflow, or the run id is malformed.
            StoreUnavailable: Redis does not answer.
        """
        self._refuse("resolve")
        return promises.resolve(run_id, self.name, self._adapter.dumps(value))

    def reject(self, run_id: str, error: str, *, code: int = 500) -> Answer:
        """Let it fail, in one run: who awaits it sees `StepFailed` with this message and code.

        Returns:
            As `resolve` does.

        Raises:
            ConfigError: In a workflow, or the run id or the code is malformed.
            StoreUnavailable: Redis does not answer.
        """
        self._refuse("reject")
        return promises.reject(run_id, self.name, error, code)

    def schema(self) -> dict[str, Any]:
        """The JSON schema of its value."""
        return self._adapter.schema()

    def _refuse(self, verb: str) -> None:
        refuse_in_workflow(f"{self!r}.{verb}(...)", "let a step do it")

    @property
    def label(self) -> str:
        return self.name

    @property
    def task_name(self) -> str:
        return f"{PROMISE}{self.name}"

    def prepare(self) -> NewPart:
        return NewPart(kind="promise", queue="", label=self.name)

    def value(self, outcome: str) -> T:
        return cast("T", self._adapter.loads(outcome))


def check_value(engine: Engine, run_id: str, name: str, text: str) -> None:
    """Refuse a value that does not fit what a run waits for from outside, if its workflow is known here.

    The run is replayed for that, as a turn does it: only its code knows the type.

    Args:
        name: As the timeline has it: `promise approval`, `channel jobs`.

    Raises:
        PayloadError: The value does not fit.
    """
    from canvas.turn import asked_by  # noqa: PLC0415  # it needs the engine, which is made of all of this

    recipe = asked_by(engine, run_id)
    for part in recipe.parts if recipe else ():
        if isinstance(part, Promise | Receive) and part.task_name == name:
            part.value(text)


def describe_value(engine: Engine, run_id: str, name: str) -> dict[str, Any] | None:
    """The JSON schema of what a run wants of a promise that it waits for, if its workflow is known here."""
    from canvas.turn import asked_by  # noqa: PLC0415

    recipe = asked_by(engine, run_id)
    found = (part for part in recipe.parts if isinstance(part, Promise) and part.name == name) if recipe else ()
    return next((part.schema() for part in found), None)


def promise(name: str, type: type[T]) -> Promise[T]:  # noqa: A002
    """A value that comes from outside: a person's answer, another system's call.

    Args:
        name: One promise a run and name.
        type: Of its value, as any annotation of a step; checked when it is resolved and when it is read.

    Raises:
        ConfigError: The name is empty, too long, or no text; or the type can't be carried as JSON.
    """
    return Promise(name, type)


@dataclass(frozen=True)
class PromiseResult(Generic[R_co]):
    """What came of a promise within its time.

    Attributes:
        timed_out: Whether nothing came.
    """

    timed_out: bool
    _value: R_co | None
    _why: str = ""

    @property
    def value(self) -> R_co:
        """What it was resolved with.

        Raises:
            TimedOut: Nothing came.
        """
        if self.timed_out:
            raise TimedOut(self._why)
        return cast("R_co", self._value)


@overload
def race_promise_with_timeout(promise: Promise[T], timeout_s: float, /) -> Join[PromiseResult[T]]: ...
@overload
def race_promise_with_timeout(name: str, type: type[T], timeout_s: float) -> Join[PromiseResult[T]]: ...
def race_promise_with_timeout(*args: Any, **named: Any) -> Join[PromiseResult[Any]]:
    """A promise, or the end of its time; the promise can be resolved, and awaited, afterwards too.

    Args:
        timeout_s: Seconds from the await; days are fine.

    Raises:
        ConfigError: The time is not more than 0.
        StepFailed (when awaited): The promise was rejected.
    """
    awaited, timeout_s = _promise_and_time(*args, **named)
    checked_s(f"race_promise_with_timeout({awaited.name!r}, ...)", timeout_s, more_than_0=True)
    alone = awaited.recipe()

    def settle(decision: Decision) -> PromiseResult[Any]:
        if decision.verdict == "timed_out":
            return PromiseResult(True, None, f"promise {awaited.name} was not resolved within {timeout_s} s")
        return PromiseResult(False, alone.settle(decision))

    return Join(replace(alone, kind="race_promise_with_timeout", settle=settle, timeout_s=float(timeout_s)))


def _promise_and_time(*args: Any, **named: Any) -> tuple[Promise[Any], float]:
    if len(args) == 2 and isinstance(args[0], Promise) and not named:
        return args[0], args[1]
    return _named(*args, **named)


def _named(name: Any, type: Any = None, timeout_s: Any = None) -> tuple[Promise[Any], float]:  # noqa: A002
    if isinstance(name, Promise) or type is None or timeout_s is None:
        raise ConfigError("write race_promise_with_timeout(promise, timeout_s) or (name, type, timeout_s)")
    return Promise(name, type), timeout_s
