"""Many items through one step, so many at a time: the window is refilled by whoever ends a step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, overload

from canvas.joins import FanOutResult
from canvas.outcomes import Decision, failure
from canvas.payload import compact
from canvas.service import ServiceClient
from canvas.step import Unary
from canvas.waitables import Join, Recipe
from status.errors import ConfigError, StepFailed, TimedOut
from status.records import NewBatch

T = TypeVar("T")
R = TypeVar("R")

#: At a time, where nobody said how many: what a broker holds with ease.
MANY = 1000

#: Items in one element of the list that Redis keeps them in.
CHUNK = 32


@dataclass(frozen=True)
class Counts:
    """How many items of a batch have succeeded and failed."""

    succeeded: int
    failed: int


class Batch:
    """The items of a batch, and the step that takes each of them. They are converted when it is opened, not before."""

    def __init__(self, kind: str, step: Any, items: Iterable[Any], window: int, *, keep: bool) -> None:
        if getattr(step, "is_workflow", False):
            raise ConfigError(f"{kind}({step.name}, ...): a workflow can't be a batch's step yet: write a step for it")
        self.kind, self.step, self.window, self.keep = kind, step, window, keep
        self.items = tuple(items)

    @property
    def size(self) -> int:
        """How many items there are."""
        return len(self.items)

    @property
    def task_name(self) -> str:
        """Of the step."""
        return str(self.step.name)

    @cached_property
    def _arguments(self) -> list[Any]:
        encode = self.step.codec.encode
        return [encode((item,), {})[0][0] for item in self.items]

    @cached_property
    def _template(self) -> dict[str, Any]:
        call = self.step.s(self.items[0])
        spec: dict[str, Any] = call.spec(self.step.queue_of(call["options"]))
        spec = {"batch": True, **{name: value for name, value in spec.items() if name != "args"}}
        within_s = call.plan.within_s
        # First, where `enter_window` of `_join.lua` looks for it: the time that each item may take from its start.
        return {"within_ms": round(within_s * 1000), **spec} if within_s else spec

    def prepare(self) -> NewBatch:
        """What `open_join` files.

        Raises:
            PayloadError: An item doesn't fit the step's argument.
        """
        self.step.codec.check((self.items[0],), {})
        arguments = self._arguments
        return NewBatch(
            size=self.size,
            window=self.window,
            queue=self._template["queue"],
            label=self._template["label"],
            spec=compact(self._template),
            keep=self.keep,
            chunk=CHUNK,
            chunks=[compact(arguments[at : at + CHUNK]) for at in range(0, self.size, CHUNK)],
        )

    def spec(self, p: int) -> dict[str, Any]:
        """All that a worker needs to publish part `p`."""
        return {**self._template, "args": [self._arguments[p]]}

    def value(self, outcome: str) -> Any:
        """What a successful part gave."""
        return self.step.codec.result.loads(outcome[1:])

    def failure(self, decision: Decision, p: int) -> StepFailed:
        """What another part is raised as."""
        outcome = decision.parts[p]
        if isinstance(self.step, ServiceClient):
            limit_s, queue = self.step.timeout_s, self._template["queue"]
            return self.step.failure(outcome, p, label=self.task_name, within_s=limit_s, queue=queue)
        return failure(outcome, step=self.task_name, index=p, within_s=None)

    def values(self, decision: Decision) -> list[Any]:
        """Of all parts, in the order of the items; None where one failed."""
        outcomes = (decision.parts[p] for p in range(self.size))
        return [self.value(outcome) if outcome[0] == "v" else None for outcome in outcomes]


def _recipe(batch: Batch, *, settle: bool) -> Recipe:
    def decided(decision: Decision) -> Any:
        if decision.verdict == "timed_out":
            raise TimedOut(f"{batch.kind} of {batch.size} items: its time was up")
        if decision.verdict == "failed":
            raise batch.failure(decision, int(decision.index))
        if not batch.keep:
            return Counts(*decision.counts)
        values = batch.values(decision)
        if not settle:
            return values
        errors = (batch.failure(decision, p) if decision.parts[p][0] != "v" else None for p in range(batch.size))
        return FanOutResult(values, tuple(errors))

    return Recipe(batch.kind, "settle" if settle else "all", (), decided, batch=batch)


def _window(kind: str, max_concurrency: int) -> int:
    if max_concurrency < 1:
        raise ConfigError(f"{kind}(max_concurrency={max_concurrency}): at least 1 must run at a time")
    return max_concurrency


def map_concurrent(step: Unary[T, R], items: Iterable[T], max_concurrency: int | None = None) -> Join[list[R]]:
    """A step for each item; the values in the order of the items, or the first error, what still runs stopped.

    Args:
        step: Takes one item.
        items: Read once, when this is called.
        max_concurrency: How many at a time, on all workers together; None: as many as 1,000.

    Raises:
        ConfigError: `max_concurrency` is less than 1.
        PayloadError (when awaited): An item does not fit the step's argument.
        StepFailed (when awaited): Of the first item that failed.
    """
    window = MANY if max_concurrency is None else _window("map_concurrent", max_concurrency)
    return Join(_recipe(Batch("map_concurrent", step, items, window, keep=True), settle=False))


@overload
def process_batch(step: Unary[T, R], items: Iterable[T], max_concurrency: int) -> Join[list[R]]: ...
@overload
def process_batch(
    step: Unary[T, R], items: Iterable[T], max_concurrency: int, *, settle: Literal[True]
) -> Join[FanOutResult[list[R | None]]]: ...
@overload
def process_batch(
    step: Unary[T, R], items: Iterable[T], max_concurrency: int, *, settle: bool = False, collect: Literal[False]
) -> Join[Counts]: ...
def process_batch(
    step: Unary[Any, Any],
    items: Iterable[Any],
    max_concurrency: int,
    *,
    settle: bool = False,
    collect: bool = True,
) -> Join[Any]:
    """A step for each item, so many at a time on all workers together.

    Args:
        step: Takes one item.
        items: Read once, when this is called.
        max_concurrency: A window: whoever ends a step starts the next item's.
        settle: Go on past failures, and give every outcome; False: end with the first.
        collect: False: give `Counts` alone and keep no outcome; for very many items.

    Raises:
        ConfigError: `max_concurrency` is less than 1.
        PayloadError (when awaited): An item does not fit the step's argument.
        StepFailed (when awaited): Of the first item that failed, unless `settle`.
    """
    window = _window("process_batch", max_concurrency)
    return Join(_recipe(Batch("process_batch", step, items, window, keep=collect), settle=settle))
