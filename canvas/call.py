"""`Call`: a step or a workflow with its arguments, and what was said of how to run it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar, cast

from celery.canvas import Signature

from canvas import children
from canvas.outcomes import failure
from canvas.payload import compact
from canvas.waitables import Part
from status.errors import ConfigError
from status.records import NewPart, check_run_id

if TYPE_CHECKING:
    from canvas.step import Unary

R_co = TypeVar("R_co", covariant=True)

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


@dataclass(frozen=True)
class Plan:
    """What `.after`, `.within`, `.named`, `.undone_by` and sagas add to a call.

    Attributes:
        undo: The spec of what undoes it, should it succeed after its join was decided.
        undoes: The idempotency key of what this call undoes.
        key: Its own idempotency key, if it is not that of its place.
        retry: Numbers that override the step's own policy.
    """

    delay_s: float = 0.0
    within_s: float | None = None
    label: str | None = None
    undone_by: tuple[Any, tuple[Any, ...]] | None = None
    undo: dict[str, Any] | None = None
    undoes: str | None = None
    key: str | None = None
    retry: dict[str, Any] | None = None
    run_id: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it adds no more than a label."""
        return self is _PLAIN or replace(self, label=None) == _PLAIN


_PLAIN = Plan()


@cache  # a replay asks for it at each await
def _await_of(task_name: str) -> str:
    return f"{Part.kind}({task_name})"


class Call(Signature[R_co], Part[R_co]):
    """A step (or workflow) with its arguments: `my_step.s(...)`. A Celery signature with a typed result."""

    plan: Plan = _PLAIN
    _definition: Any = None

    @classmethod
    def of(cls, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        """What `Call(name, args, kwargs, app=app)` makes, in a third of the time: replays make many.

        Args:
            definition: The step or workflow that it calls.
        """
        call: Any = cls.__new__(cls)
        call._app = definition._get_app()  # noqa: SLF001  # as Celery's own tasks ask for it
        call._definition = definition  # noqa: SLF001  # of its own kind
        call.update(task=definition.name, args=args, kwargs=kwargs, options={}, subtask_type=None, immutable=False)
        return call  # type: ignore[no-any-return]

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

    def with_run_id(self, run_id: str) -> Self:
        """The run id of a child workflow; without it, it is made of its parent's. Gives a new call.

        Raises:
            ConfigError: It is a step's call, or the id is malformed.
        """
        if not getattr(self.definition, "is_workflow", False):
            raise ConfigError(
                f"{self!r}.with_run_id({run_id!r}): a step has no run of its own, only a workflow's call has"
            )
        return self._with(run_id=check_run_id(run_id))

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
    def fingerprint(self) -> str:
        return _await_of(self.task_name)

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
            return children.prepare(self)
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
            "key": self.plan.key,
            "retry": self.plan.retry,
            "once": not self.definition.idempotent,
            "priority": self["options"].get("priority"),
        }
        return {name: value for name, value in spec.items() if value not in (None, False)}

    @property
    def kind_of_call(self) -> Any:
        definition = self.definition
        # Its process is killed when nobody waits for it, or it is that of the turn: such steps are run one by one.
        if not self.plan.is_plain or getattr(definition, "interruptible", True) or definition.local:
            return None
        return self["task"], self.plan.label, self["options"]

    @property
    def arguments(self) -> tuple[Sequence[Any], dict[str, Any]]:
        return self["args"], self["kwargs"]

    @property
    def common_spec(self) -> dict[str, Any]:
        spec = self.spec(self.definition.queue_of(self["options"]))
        return {name: value for name, value in spec.items() if name not in ("args", "kwargs")}

    def value(self, outcome: str) -> R_co:
        definition = self._definition or self.definition
        return definition.codec.result.loads(outcome)  # type: ignore[no-any-return]

    def failure(self, outcome: str, index: int) -> Exception:
        return failure(outcome, step=self.label, index=index, within_s=self.plan.within_s)
