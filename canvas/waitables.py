"""What a workflow can await.

    Waitable[R]       can be awaited in a workflow; outside, `.submit()` makes a run of it
    ├── Part[R]       may be one part of a join
    │   ├── Call[R]      `step.s(...)`, `workflow.s(...)`: a Celery signature
    │   └── Sleep        `run.sleep(...)`
    └── Join[R]       fan_out, race, ...: is not a part

A waitable is a recipe: each await of it is new work, and nothing starts before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar, cast

from celery.canvas import Signature

from canvas.outcomes import Decision, failure
from canvas.payload import compact
from status.errors import ConfigError, TimedOut
from status.records import NewPart

if TYPE_CHECKING:
    from canvas.handle import RunHandle
    from canvas.step import Unary

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

#: Options of Celery that celeriac decides, and what to write for them.
TAKEN_OPTIONS = {
    "countdown": "write .after(delay_s)",
    "eta": "write .after(delay_s)",
    "task_id": "the id is made from the run, the await and the part",
    "link": "await the call and go on with its value",
    "link_error": "catch StepFailed, or use a Saga",
    "chord": "write fan_out(...) or fan_out_fail(...)",
    "retry_policy": "write @step(retry=Retry(...))",
}


class Waitable(Generic[R_co]):
    """A description of work, to be awaited in a workflow."""

    def __await__(self) -> Generator[Any, Any, R_co]:
        # Yields itself to whoever drives the workflow; asks no context variable.
        try:
            return (yield self)  # type: ignore[no-any-return]
        except RuntimeError as error:
            if "got bad yield" in str(error):  # what asyncio says of anything that is not its own
                error.add_note(f"{self!r} can be awaited in a @workflow only: from asyncio, start a run with .submit()")
            raise

    def __bool__(self) -> Never:
        raise TypeError(f"{self!r} is a call, not its value: write `await`")

    def recipe(self) -> Recipe:
        """What to open, and how to make the value of it."""
        raise NotImplementedError

    def limited(self, recipe: Recipe) -> Join[R_co]:
        """The same with another recipe: its own, with a time limit."""
        return Join(recipe)

    def submit(self, *, run_id: str | None = None, timeout_s: float | None = None) -> RunHandle[R_co]:
        """Start a run of its own. Not in a workflow: it would start one at each replay.

        Args:
            run_id: The same id again gives the run that exists; None: a fresh one.
            timeout_s: Of the whole run.

        Raises:
            ConfigError: In a workflow, or the id is malformed.
            RunConflict: The id is taken by a run with other arguments.
            StoreUnavailable: Redis does not answer; nothing was submitted.
        """
        from canvas.submission import submit_waitable  # noqa: PLC0415  # it needs all of them

        return submit_waitable(self, run_id=run_id, timeout_s=timeout_s)


class Part(Waitable[R_co]):
    """May be one part of a join."""

    @property
    def label(self) -> str:
        """How the timeline and errors name it."""
        raise NotImplementedError

    @property
    def task_name(self) -> str:
        """What the journal's fingerprint calls it."""
        raise NotImplementedError

    def prepare(self) -> NewPart:
        """What `open_join` files.

        Raises:
            PayloadError: Its arguments don't fit.
        """
        raise NotImplementedError

    def value(self, outcome: str) -> R_co:
        """What a successful outcome holds."""
        raise NotImplementedError

    def failure(self, outcome: str, index: int) -> Exception:
        """What another outcome is raised as."""
        return failure(outcome, step=self.label, index=index, within_s=None)

    def recipe(self) -> Recipe:
        def settle(decision: Decision) -> Any:
            if (outcome := decision.parts.get(0)) is None:
                raise TimedOut(f"{self.label}: its time was up")
            if outcome[0] == "v":
                return self.value(outcome[1:])
            raise self.failure(outcome, 0)

        return Recipe("await", "all", (self,), settle)


class Join(Waitable[R_co]):
    """Several parts, awaited together. Is not a part: nest with a child workflow."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def recipe(self) -> Recipe:
        return self._recipe

    def __repr__(self) -> str:
        return self._recipe.fingerprint

    def __getattr__(self, name: str) -> Never:
        if name.startswith("__"):
            raise AttributeError(name)
        kind = self.__dict__["_recipe"].kind if "_recipe" in self.__dict__ else "join"
        raise AttributeError(f"{name!r} asked of a {kind} that was not awaited: write `(await {kind}(...)).{name}`")


@dataclass(frozen=True)
class Recipe:
    """How an await is opened, and what its decision means.

    Attributes:
        settle: Makes the value of the decision, or raises what the workflow is to see.
        need: The successes that a quorum needs.
        undo: It undoes something: goes on although the run is cancelled.
        state: What the run is in while this is open.
    """

    kind: str
    policy: str
    parts: Sequence[Part[Any]]
    settle: Callable[[Decision], Any]
    need: int = 0
    timeout_s: float | None = None
    undo: bool = False
    state: str = "running"

    @property
    def fingerprint(self) -> str:
        """Kind and step names; runs of one name are counted, so that a thousand of them stay short."""
        names = []
        for name, same in groupby(part.task_name for part in self.parts):
            number = len(list(same))
            names.append(name if number == 1 else f"{name}*{number}")
        return f"{self.kind}({', '.join(names)})"


@dataclass(frozen=True)
class Plan:
    """What `.after`, `.within`, `.named`, `.undone_by` and sagas add to a call.

    Attributes:
        undo: The spec of what undoes it, should it succeed after its join was decided.
        undoes: The idempotency key of what this call undoes.
        retry: Numbers that override the step's own policy.
    """

    delay_s: float = 0.0
    within_s: float | None = None
    label: str | None = None
    undone_by: tuple[Any, tuple[Any, ...]] | None = None
    undo: dict[str, Any] | None = None
    undoes: str | None = None
    retry: dict[str, Any] | None = None
    run_id: str | None = None


_PLAIN = Plan()


class Call(Signature[R_co], Part[R_co]):
    """A step (or workflow) with its arguments: `my_step.s(...)`. A Celery signature with a typed result."""

    plan: Plan = _PLAIN
    _definition: Any = None

    # People write `if x.s(1):` by mistake; Celery writes `if body:` where it means `is not None`.
    def __bool__(self) -> Never:
        if str(sys._getframe(1).f_globals.get("__name__", "")).startswith("celery."):  # noqa: SLF001
            return True  # type: ignore[misc]
        raise TypeError(f"{self!r} is a call, not its value: write `await`")

    def __repr__(self) -> str:
        return f"{self.task_name}(...)"

    def after(self, delay_s: float) -> Self:
        """Start later; in a race, as soon as all parts before it have failed. Gives a new call.

        Args:
            delay_s: Seconds from the await.
        """
        if delay_s < 0:
            raise ConfigError(f"{self!r}.after({delay_s}): the delay must be at least 0 seconds")
        return self._with(delay_s=float(delay_s))

    def within(self, timeout_s: float) -> Self:
        """Give up with `StepTimeout`, queue and retries included. Gives a new call.

        Args:
            timeout_s: Seconds from when the part starts.
        """
        if timeout_s <= 0:
            raise ConfigError(f"{self!r}.within({timeout_s}): the time must be more than 0 seconds")
        return self._with(within_s=float(timeout_s))

    def named(self, label: str) -> Self:
        """How the timeline, errors and `RaceResult.name` call it. Gives a new call."""
        return self._with(label=label)

    def undone_by(self, undo: Call[Any] | Unary[None, Any], *args: Any) -> Self:
        """What undoes it, for `saga.run(...)`. Gives a new call."""
        return self._with(undone_by=(undo, args))

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Celery's own options (`queue`, `priority`, …). Changes this call.

        Raises:
            ConfigError: The option is one that celeriac decides; the message says what to write.
        """
        for name in options:
            if name in TAKEN_OPTIONS:
                raise ConfigError(f"{self!r}.set({name}=...): {TAKEN_OPTIONS[name]}")
        super().set(immutable, **options)
        return self

    def planned(self, **changes: Any) -> Self:
        """A new call with other marks of celeriac's own (a saga's)."""
        return self._with(**changes)

    def _with(self, **changes: Any) -> Self:
        new = type(self)(
            self["task"],
            self["args"],
            self["kwargs"],
            dict(self["options"]),
            immutable=self["immutable"],
            app=cast("Any", self)._app,  # noqa: SLF001  # our own base's
        )
        new.plan = replace(self.plan, **changes)
        new._definition = self._definition  # noqa: SLF001  # of its own kind
        return new

    @property
    def label(self) -> str:
        return self.plan.label or self.task_name

    @property
    def task_name(self) -> str:
        return str(self["task"])

    @property
    def definition(self) -> Any:
        """The step or workflow that it calls."""
        if self._definition is None:
            self._definition = self.app.tasks[self["task"]]
        return self._definition

    @definition.setter
    def definition(self, definition: Any) -> None:
        self._definition = definition

    def prepare(self) -> NewPart:
        definition, plan = self.definition, self.plan
        if getattr(definition, "is_workflow", False):
            # Sent as a step, its message would be a turn of a run that is not there: the parent would wait for ever.
            raise ConfigError(f"{self!r}: a workflow can't be awaited in another yet: let a step submit it")
        definition.codec.check(self["args"], self["kwargs"])
        queue = definition.queue_of(self["options"])
        return NewPart(
            kind="step",
            queue=queue,
            label=self.label,
            spec=compact(self.spec(queue)),
            delay_ms=round(plan.delay_s * 1000),
            within_ms=round((plan.within_s or 0) * 1000),
        )

    def spec(self, queue: str) -> dict[str, Any]:
        """All that a worker needs to publish it, as plain JSON values."""
        spec = {
            "task": self["task"],
            "args": self["args"],
            "kwargs": self["kwargs"],
            "queue": queue,
            "label": self.label,
            "undo": self.plan.undo,
            "undoes": self.plan.undoes,
            "retry": self.plan.retry,
            "once": not self.definition.idempotent,
            "priority": self["options"].get("priority"),
        }
        return {name: value for name, value in spec.items() if value not in (None, False)}

    def value(self, outcome: str) -> R_co:
        return self.definition.codec.result.loads(outcome)  # type: ignore[no-any-return]

    def failure(self, outcome: str, index: int) -> Exception:
        return failure(outcome, step=self.label, index=index, within_s=self.plan.within_s)


class Sleep(Part[None]):
    """Waits; made by `run.sleep(delay_s)`."""

    def __init__(self, delay_s: float) -> None:
        if delay_s < 0:
            raise ConfigError(f"run.sleep({delay_s}): the delay must be at least 0 seconds")
        self.delay_s = delay_s

    def __repr__(self) -> str:
        return f"sleep({self.delay_s})"

    @property
    def label(self) -> str:
        return "sleep"

    @property
    def task_name(self) -> str:
        return "sleep"

    def prepare(self) -> NewPart:
        return NewPart(kind="sleep", queue="", label="sleep", delay_ms=round(self.delay_s * 1000))

    def value(self, outcome: str) -> None:  # noqa: ARG002  # a sleep has none
        return None

    def recipe(self) -> Recipe:
        return replace(super().recipe(), state="suspended")
