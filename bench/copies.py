"""Fills a Redis with ended runs: copies of real ones under other ids, in all indexes that a run is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from bench.stage import Stage
from status.keys import Keys

#: Runs that are copied in one round trip.
BATCH = 250
#: Of `Keys.of_run`: the kinds of keys that a run may leave, where its states and its end are listed.
KINDS, STATES, ENDED = (0, 1, 3, 4, 5, 12), 9, 10


@dataclass(frozen=True)
class Original:
    """A finished run as it lies in Redis: (kind, its key's dump, its time to live in ms) for each key."""

    parts: list[tuple[int, bytes, int]]
    submitted_ms: float
    ends_ms: float


def fill(stage: Stage, runs: int, say: Callable[[str], None] = print) -> None:
    """Copy finished orders until so many runs are there.

    Raises:
        RuntimeError: There is no finished run to copy.
    """
    keys = Keys()
    with redis.Redis.from_url(stage.valkey.url) as client:
        there = _count(client, keys)
        if there >= runs:
            return
        originals = [read(client, keys, run_id) for run_id in _finished(client, keys, 50)]
        # What is copied is written to the file once, at the end, and not as so many commands.
        client.config_set("appendonly", "no")
        ids = (f"copy-{number}" for number in range(runs - there))
        while batch := list(islice(ids, BATCH)):
            write(client, keys, originals, batch)
        client.config_set("appendonly", "yes")
        stage.until(lambda: _is_written(client), "the append-only file was not written", 600)
        if _count(client, keys) != runs:
            raise RuntimeError(f"there are {_count(client, keys)} runs, not {runs}")
    say(f"{runs:>9,} runs are there")


def _count(client: Any, keys: Keys) -> int:
    return sum(client.zcard(keys.state(shard, "completed")) for shard in range(keys.shards))


def _finished(client: Any, keys: Keys, at_most: int) -> list[str]:
    found = [
        member.decode()
        for shard in range(keys.shards)
        for member in client.zrange(keys.state(shard, "completed"), 0, 9)
    ]
    if not found:
        raise RuntimeError("no run has finished: there is nothing to copy")
    return found[:at_most]


def read(client: Any, keys: Keys, run_id: str) -> Original:
    """A finished run; the client gives bytes."""
    names = keys.of_run(run_id)
    dumps = [(kind, client.dump(names[kind]), client.pttl(names[kind])) for kind in KINDS]
    return Original(
        parts=[(kind, dump, max(ttl_ms, 0)) for kind, dump, ttl_ms in dumps if dump is not None],
        submitted_ms=client.zscore(f"{names[STATES]}completed", run_id),
        ends_ms=client.zscore(names[ENDED], f"completed|{run_id}"),
    )


def write(client: Any, keys: Keys, originals: Sequence[Original], run_ids: Sequence[str]) -> None:
    """Copies under these ids, of each original in turn."""
    pipe = client.pipeline(transaction=False)
    for run_id, original in zip(run_ids, _for_ever(originals), strict=False):
        names = keys.of_run(run_id)
        for kind, dump, ttl_ms in original.parts:
            pipe.restore(names[kind], ttl_ms, dump)
        pipe.zadd(f"{names[STATES]}completed", {run_id: original.submitted_ms})
        pipe.zadd(names[ENDED], {f"completed|{run_id}": original.ends_ms})
    pipe.execute()


def _for_ever(originals: Sequence[Original]) -> Iterator[Original]:
    while True:
        yield from originals


def _is_written(client: Any) -> bool:
    info = client.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]
