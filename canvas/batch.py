"""Many items through one step, so many at a time: the window is refilled by whoever ends a step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, cast, overload

from canvas.context import workflow_here
from canvas.joins import FanOutResult
from canvas.outcomes import Decision, failure
from canvas.payload import compact
from canvas.service import ServiceClient
from canvas.step import Unary, refuse_calls
from canvas.waitables import Join, Recipe
from status.errors import ConfigError, PayloadError, StepFailed, TimedOut
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
        self.kind, self.step, self.window, self.keep = kind, step, window, keep
        # An iterator may have no end in sight: `.submit()` reads it bit by bit, and in a workflow there is none.
        as_it_is = isinstance(items, range) or (isinstance(items, Iterator) and workflow_here() is None)
        self._given: Iterable[Any] = items if as_it_is else tuple(items)
        self._read: int | None = None

    @cached_property
    def items(self) -> Sequence[Any]:
        """All of them."""
        if isinstance(self._given, Iterator):
            return tuple(self.once())
        return cast("Sequence[Any]", self._given)

    def once(self) -> Iterator[Any]:
        """The items, one by one; of an iterator only for the first who asks.

        Raises:
            ConfigError: It was asked for before.
        """
        if isinstance(self._given, Iterator) and self._read is not None:
            raise ConfigError(
                f"{self.kind}({self.task_name}, ...): its items were an iterator, and have been read: give a list"
            )
        self._read = 0
        for item in self._given:
            self._read += 1
            yield item

    @property
    def size(self) -> int:
        """How many items there are."""
        # Who has read them for a submit keeps their number, not the items.
        if isinstance(self._given, Iterator) and self._read is not None:
            return self._read
        return len(self.items)

    @property
    def task_name(self) -> str:
        """Of the step."""
        return str(self.step.name)

    def chunks(self, items: Iterable[Any]) -> Iterator[str]:
        """The items as Redis keeps them: some of them to a piece.

        Raises:
            PayloadError: An item doesn't fit the step's argument.
        """
        chunk: list[Any] = []
        for at, item in enumerate(items):
            chunk.append(self._encoded(at, item))
            if len(chunk) == CHUNK:
                yield compact(chunk)
                chunk = []
        if chunk:
            yield compact(chunk)

    def _encoded(self, at: int, item: Any) -> Any:
        try:
            refuse_calls(self.task_name, (item,), {})
            return self.step.codec.encode((item,), {})[0][0]
        except PayloadError as error:
            raise PayloadError(f"item {at} of {self.kind}({self.task_name}, ...): {error}") from error

    def filed(self, first: Any, size: int, chunks: Sequence[str]) -> NewBatch:
        """What `open_join` files.

        Args:
            first: An item, to see whether the step takes one.
            chunks: See `NewBatch`.

        Raises:
            PayloadError: It takes other arguments.
        """
        self.step.codec.check((first,), {})
        part = self.step.s(first).prepare()
        of_an_item = ("args", "input", "digest")
        template = {"batch": True} | {k: v for k, v in json.loads(part.spec).items() if k not in of_an_item}
        # First, where `enter_window` of `_join.lua` looks for it: the time that each item may take from its start.
        template = {"within_ms": part.within_ms, **template} if part.within_ms else template
        queue = ">" if part.kind == "child" else part.queue
        return NewBatch(size, self.window, queue, part.label, compact(template), self.keep, CHUNK, chunks)

    def prepare(self) -> NewBatch:
        """What `open_join` files.

        Raises:
            PayloadError: An item doesn't fit the step's argument.
        """
        return self.filed(self.items[0], self.size, list(self.chunks(self.items)))

    def value(self, outcome: str) -> Any:
        """What a successful part gave."""
        return self.step.codec.result.loads(outcome[1:])

    def failure(self, decision: Decision, p: int) -> StepFailed:
        """What another part is raised as."""
        outcome = decision.parts[p]
        if isinstance(self.step, ServiceClient):
            limit_s, queue = self.step.timeout_s, self.step.queue_of({})
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
        items: Read once, when this is called; an iterator outside of a workflow, when it is submitted.
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
        step: Takes one item; a workflow does too.
        items: Read once, when this is called. Outside of a workflow an iterator is read by `.submit()`, bit by bit into
            Redis: it may be longer than memory has room for.
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
