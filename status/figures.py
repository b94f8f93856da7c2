"""Figures of all runs of a Redis, for machines: read from what the scripts have counted. Changes nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis

from status.keys import Keys
from status.states import State

#: What the scripts count, by the letters of `lua/_count.lua`; those that have a time besides.
TIMED = frozenset({"r", "s", "p"})

Labels = tuple[str, ...]


@cache
def bounds_s() -> tuple[float, ...]:
    """The upper bounds of the buckets, in seconds: those of `lua/_figures.lua`."""
    text = (files("status") / "lua" / "_figures.lua").read_text(encoding="utf-8")
    found = re.search(r"BUCKETS_MS = \{([\d, ]+)\}", text)
    assert found is not None  # noqa: S101 — it is ours
    return tuple(int(bound) / 1000 for bound in found[1].split(","))


@dataclass(slots=True)
class Times:
    """How long something took, many times.

    Attributes:
        buckets: How many took at most as long as each of `bounds_s()` and longer than the one before; the last: longer.
    """

    buckets: list[int] = field(default_factory=lambda: [0] * (len(bounds_s()) + 1))
    sum_s: float = 0.0

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.buckets)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as it lies at the broker.

    Attributes:
        oldest_s: How long its oldest message has waited; None: it has none that says so.
    """

    name: str
    messages: int
    oldest_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """All of them, at one moment. Counts go on growing, whatever is forgotten after its retention.

    Attributes:
        states: Runs that are there now, by state.
        submitted: By workflow.
        runs: By workflow and final state; phases by workflow and phase; steps by name and state.
        retries: Attempts made again, by step. undos: by name and `done` or `failed`.
        recovered: Claims of dead workers, lost turns and lost messages that were put back on their way.
        timers: Open ones; of these, late: due for more than a second. due: Everything that is unfinished.
        queues: (), if the broker can't be asked, or this process knows no app.
    """

    states: Mapping[State, int]
    submitted: Mapping[Labels, int]
    runs: Mapping[Labels, Times]
    phases: Mapping[Labels, Times]
    steps: Mapping[Labels, Times]
    retries: Mapping[Labels, int]
    undos: Mapping[Labels, int]
    recovered: Mapping[Labels, int]
    timers: int
    late: int
    due: int
    queues: Sequence[Queue] = ()


_queues: Callable[[], Sequence[Queue]] | None = None


def queues_with(look: Callable[[], Sequence[Queue]]) -> None:
    """Say how this process looks at its queues: who knows the app tells it."""
    global _queues  # noqa: PLW0603  # one app a process is the point
    _queues = look


def gather(redis: Redis, keys: Keys) -> Figures:
    """Read the figures, in one round trip to Redis; the queues in another.

    Raises:
        RedisError: Redis does not answer.
    """
    shards = range(keys.shards)
    pipe = redis.pipeline(transaction=False)
    pipe.time()
    seconds = int(pipe.execute()[0][0])
    for shard in shards:
        pipe.hgetall(keys.counts(shard))
        pipe.zcard(keys.timers(shard))
        pipe.zcount(keys.timers(shard), "-inf", (seconds - 1) * 1000)
        pipe.zcard(keys.due(shard))
        for state in State:
            pipe.zcard(keys.state(shard, state))
    answers = pipe.execute()
    each = 4 + len(State)
    rows = [answers[at * each : (at + 1) * each] for at in shards]
    counts, times = _sorted_out([row[0] for row in rows])
    return Figures(
        states={state: sum(row[4 + at] for row in rows) for at, state in enumerate(State)},
        submitted=counts["n"],
        runs=times["r"],
        phases=times["p"],
        steps=times["s"],
        retries=counts["t"],
        undos=counts["u"],
        recovered=counts["x"],
        timers=sum(row[1] for row in rows),
        late=sum(row[2] for row in rows),
        due=sum(row[3] for row in rows),
        queues=_queues() if _queues is not None else (),
    )


def _sorted_out(
    hashes: Sequence[Mapping[str, str]],
) -> tuple[dict[str, dict[Labels, int]], dict[str, dict[Labels, Times]]]:
    """The hashes of all shards together: by kind and labels."""
    counts: dict[str, dict[Labels, int]] = defaultdict(lambda: defaultdict(int))
    times: dict[str, dict[Labels, Times]] = defaultdict(lambda: defaultdict(Times))
    for held in hashes:
        for name, number in held.items():
            kind, first, second, bucket = name.split("|")
            labels = (first, second) if second else (first,)
            if kind not in TIMED:
                counts[kind][labels] += int(number)
            elif bucket == "ms":
                times[kind][first, second].sum_s += int(number) / 1000
            else:
                times[kind][first, second].buckets[int(bucket) - 1] += int(number)
    return counts, times


def as_json(figures: Figures) -> dict[str, Any]:
    """As plain JSON values."""

    def rows(names: Sequence[str], found: Mapping[Labels, int | Times]) -> list[dict[str, Any]]:
        return [dict(zip(names, labels, strict=True)) | _number(value) for labels, value in sorted(found.items())]

    return {
        "bounds_s": bounds_s(),
        "states": {str(state): number for state, number in figures.states.items()},
        "submitted": rows(("workflow",), figures.submitted),
        "runs": rows(("workflow", "state"), figures.runs),
        "phases": rows(("workflow", "phase"), figures.phases),
        "steps": rows(("step", "state"), figures.steps),
        "retries": rows(("step",), figures.retries),
        "undos": rows(("undo", "outcome"), figures.undos),
        "recovered": rows(("what",), figures.recovered),
        "timers": {"open": figures.timers, "late": figures.late},
        "due": figures.due,
        "queues": [{"queue": q.name, "messages": q.messages, "oldest_s": q.oldest_s} for q in figures.queues],
    }


def _number(value: int | Times) -> dict[str, Any]:
    if isinstance(value, int):
        return {"count": value}
    return {"count": value.count, "sum_s": round(value.sum_s, 3), "buckets": value.buckets}
