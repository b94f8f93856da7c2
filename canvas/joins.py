"""Several parts at once: all of them, whatever comes, the first, or enough."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, overload

from canvas.call import Call
from canvas.outcomes import Decision
from canvas.waitables import Join, Part, Recipe, Waitable, checked_s
from status.errors import AllFailed, ConfigError, QuorumFailed, StepFailed, TimedOut

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

logger = logging.getLogger("celeriac")

#: More parts than this in one `fan_out` are better a batch.
MANY = 1000


class FanOutResult(Generic[R_co]):
    """Every outcome of a `fan_out`, in the order of its parts.

    Attributes:
        results: The values; None where a part failed.
        errors: The errors; None where a part succeeded.
    """

    def __init__(self, results: R_co, errors: tuple[StepFailed | None, ...]) -> None:
        self._looked = not any(errors)
        self.results = results
        self._errors = errors
        self._failed = sum(error is not None for error in errors)
        self._given_by = ""

    @property
    def errors(self) -> tuple[StepFailed | None, ...]:
        """The error of each part, None where it succeeded."""
        self._looked = True
        return self._errors

    @property
    def failed(self) -> int:
        """How many parts failed."""
        self._looked = True
        return self._failed

    @property
    def succeeded(self) -> int:
        """How many parts succeeded."""
        return len(self._errors) - self._failed

    @property
    def bad(self) -> Iterator[tuple[int, StepFailed]]:
        """Index and error of each part that failed."""
        self._looked = True
        return ((index, error) for index, error in enumerate(self._errors) if error is not None)

    @property
    def unseen(self) -> tuple[StepFailed, ...]:
        """The errors, if nobody has asked for them."""
        return () if self._looked else tuple(error for error in self._errors if error)

    def given_by(self, handle: str) -> None:
        """It was not given to a workflow, which is watched, but by a run's handle."""
        self._given_by = handle

    def __del__(self) -> None:
        if self._given_by:
            warn_of_unseen(self, self._given_by)

    def __repr__(self) -> str:
        return f"FanOutResult(succeeded={self.succeeded}, failed={self._failed})"


@dataclass(frozen=True)
class RaceResult(Generic[R_co]):
    """The first success of a race: which part, its name and its value."""

    index: int
    name: str
    value: R_co


def _checked(kind: str, parts: tuple[Any, ...]) -> tuple[Part[Any], ...]:
    for part in parts:
        if isinstance(part, Part):
            continue
        if isinstance(part, list | tuple):
            raise TypeError(f"write {kind}(*calls), with the star: got a {type(part).__name__}")
        if isinstance(part, Join):
            raise TypeError(f"{part!r} is a join, not a part of {kind}: put it in a workflow of its own and call that")
        raise TypeError(f"{kind} takes calls (step.s(...)), got {type(part).__name__} {part!r:.60}")
    return parts


def _value(parts: tuple[Part[Any], ...], decision: Decision, p: int) -> Any:
    return parts[p].value(decision.parts[p][1:])


def _failures(parts: tuple[Part[Any], ...], decision: Decision) -> tuple[StepFailed, ...]:
    return tuple(
        error
        for p, outcome in sorted(decision.parts.items())
        if outcome[0] != "v" and isinstance(error := parts[p].failure(outcome, p), StepFailed)
    )


def _in_time(kind: str, decision: Decision) -> None:
    if decision.verdict == "timed_out":
        raise TimedOut(f"{kind}: its time was up")


def _join(kind: str, policy: str, parts: tuple[Part[Any], ...], settle: Any, need: int = 0) -> Recipe:
    def timely(decision: Decision) -> Any:
        _in_time(kind, decision)
        return settle(decision)

    waits = all(part.state == "suspended" for part in parts) and bool(parts)
    return Recipe(kind, policy, parts, timely, need=need, state="suspended" if waits else "running")


@overload
def fan_out_fail(a: Part[A], /) -> Join[tuple[A]]: ...
@overload
def fan_out_fail(a: Part[A], b: Part[B], /) -> Join[tuple[A, B]]: ...
@overload
def fan_out_fail(a: Part[A], b: Part[B], c: Part[C], /) -> Join[tuple[A, B, C]]: ...
@overload
def fan_out_fail(a: Part[A], b: Part[B], c: Part[C], d: Part[D], /) -> Join[tuple[A, B, C, D]]: ...
@overload
def fan_out_fail(a: Part[A], b: Part[B], c: Part[C], d: Part[D], e: Part[E], /) -> Join[tuple[A, B, C, D, E]]: ...
@overload
def fan_out_fail(
    a: Part[A], b: Part[B], c: Part[C], d: Part[D], e: Part[E], f: Part[F], /
) -> Join[tuple[A, B, C, D, E, F]]: ...
@overload
def fan_out_fail(*parts: Part[R]) -> Join[tuple[R, ...]]: ...
def fan_out_fail(*parts: Part[Any]) -> Join[Any]:
    """All at once; every value, or the first error as soon as it is there, its siblings stopped.

    Raises (when awaited):
        StepFailed: Of the first part that failed.
    """
    checked = _checked("fan_out_fail", parts)

    def settle(decision: Decision) -> tuple[Any, ...]:
        if decision.verdict == "failed":
            p = int(decision.index)
            raise checked[p].failure(decision.parts[p], p)
        return tuple(_value(checked, decision, p) for p in range(len(checked)))

    return Join(_join("fan_out_fail", "all", checked, settle))


@overload
def fan_out(a: Part[A], /) -> Join[FanOutResult[tuple[A | None]]]: ...
@overload
def fan_out(a: Part[A], b: Part[B], /) -> Join[FanOutResult[tuple[A | None, B | None]]]: ...
@overload
def fan_out(a: Part[A], b: Part[B], c: Part[C], /) -> Join[FanOutResult[tuple[A | None, B | None, C | None]]]: ...
@overload
def fan_out(
    a: Part[A], b: Part[B], c: Part[C], d: Part[D], /
) -> Join[FanOutResult[tuple[A | None, B | None, C | None, D | None]]]: ...
@overload
def fan_out(
    a: Part[A], b: Part[B], c: Part[C], d: Part[D], e: Part[E], /
) -> Join[FanOutResult[tuple[A | None, B | None, C | None, D | None, E | None]]]: ...
@overload
def fan_out(
    a: Part[A], b: Part[B], c: Part[C], d: Part[D], e: Part[E], f: Part[F], /
) -> Join[FanOutResult[tuple[A | None, B | None, C | None, D | None, E | None, F | None]]]: ...
@overload
def fan_out(*parts: Part[R]) -> Join[FanOutResult[tuple[R | None, ...]]]: ...
def fan_out(*parts: Part[Any]) -> Join[Any]:
    """All at once; every outcome, good or bad. Never raises for a part."""
    checked = _checked("fan_out", parts)
    if len(checked) > MANY:
        logger.warning(
            "fan_out of %d calls: nothing bounds how many run at once, and each replay of the workflow makes them "
            "anew: process_batch(step, items, max_concurrency, settle=True) does the same a window at a time",
            len(checked),
        )

    def settle(decision: Decision) -> FanOutResult[tuple[Any, ...]]:
        errors = {error.index: error for error in _failures(checked, decision)}
        values = tuple(None if p in errors else _value(checked, decision, p) for p in range(len(checked)))
        return FanOutResult(values, tuple(errors.get(p) for p in range(len(checked))))

    return Join(_join("fan_out", "settle", checked, settle))


@overload
def race(a: Part[A], b: Part[B], /) -> Join[RaceResult[A | B]]: ...
@overload
def race(a: Part[A], b: Part[B], c: Part[C], /) -> Join[RaceResult[A | B | C]]: ...
@overload
def race(a: Part[A], b: Part[B], c: Part[C], d: Part[D], /) -> Join[RaceResult[A | B | C | D]]: ...
@overload
def race(*parts: Part[R]) -> Join[RaceResult[R]]: ...
def race(*parts: Part[Any]) -> Join[Any]:
    """The first success; the losers are stopped.

    Raises:
        ConfigError: Nobody runs.
        AllFailed (when awaited): Every part failed.
    """
    checked = _checked("race", parts)
    if not checked:
        raise ConfigError("race() needs at least one call")

    def settle(decision: Decision) -> RaceResult[Any]:
        if decision.verdict == "lost":
            raise AllFailed(_failures(checked, decision))
        p = int(decision.index)
        return RaceResult(p, checked[p].label, _value(checked, decision, p))

    return Join(_join("race", "first", checked, settle))


def quorum(n: int, /, *parts: Part[R]) -> Join[list[tuple[int, R]]]:
    """The first `n` successes, as (index, value), first come first; the rest is stopped.

    Raises:
        ConfigError: `n` is not from 1 to the number of parts.
        QuorumFailed (when awaited): So many failed that `n` can't be reached.
    """
    checked = _checked("quorum", parts)
    if not 1 <= n <= len(checked):
        raise ConfigError(f"quorum({n}, ...) of {len(checked)} calls: n must be from 1 to {len(checked)}")

    def settle(decision: Decision) -> list[tuple[int, R]]:
        if decision.verdict == "lost":
            raise QuorumFailed(_failures(checked, decision))
        return [(p, _value(checked, decision, p)) for p in decision.order]

    return Join(_join(f"quorum-{n}", "quorum", checked, settle, need=n))


def with_timeout(awaitable: Waitable[R], timeout_s: float) -> Join[R]:
    """Any waitable within a time.

    Args:
        timeout_s: Seconds from the await; queues and retries included.

    Raises:
        ConfigError: The time is not more than 0.
        TimedOut (when awaited): It was not done by then; what still ran is stopped.
    """
    checked_s("with_timeout", timeout_s, more_than_0=True)
    if not isinstance(awaitable, Waitable):
        raise TypeError(f"with_timeout takes a call (step.s(...)) or a join, got {awaitable!r:.60}")
    inner = awaitable.recipe()
    # The shorter one ends it, and what it then gives is its own: `race_promise_with_timeout` raises nothing.
    shortest_s = timeout_s if inner.timeout_s is None else min(timeout_s, inner.timeout_s)

    def settle(decision: Decision) -> Any:
        if decision.verdict == "timed_out" and shortest_s == timeout_s:
            raise TimedOut(f"{inner.fingerprint} was not done within {timeout_s} s")
        return inner.settle(decision)

    return awaitable.limited(replace(inner, settle=settle, timeout_s=shortest_s))


def warn_of_unseen(result: object, where: str) -> None:
    """Log once if a workflow left the failures of a `fan_out` unread."""
    if isinstance(result, FanOutResult) and result.unseen:
        first = result.unseen[0]
        logger.warning(
            "%s: %d of a fan_out failed and nobody looked (at .bad, .errors or .failed); the first: %s",
            where,
            len(result.unseen),
            first,
        )


__all__ = ["Call", "FanOutResult", "RaceResult", "fan_out", "fan_out_fail", "quorum", "race", "with_timeout"]
