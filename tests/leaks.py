"""Keys that would stay in Redis for ever."""

from __future__ import annotations

import re
from collections.abc import Iterator

import redis

#: The last states of a run; what belongs to one in them must have a time to live.
FINAL_STATES = frozenset({"completed", "failed", "compensated", "compensation_failed", "cancelled", "timed_out"})

_KEY = re.compile(r"^celeriac:\{[^}]*\}:(?P<kind>[^:]+):(?P<rest>.+)$")
_NO_TIME_TO_LIVE = -1


def keys_without_end(client: redis.Redis) -> list[str]:
    """The keys of finished runs that have no time to live, sorted.

    A run that goes on may keep its keys, and so may a shard (`due`, `timers`, `tick`, `by_state:*`):
    they belong to no run, or list many.

    Args:
        client: One that decodes its answers.
    """
    keys = [key for key in client.scan_iter(match="celeriac:*", count=1000) if _KEY.match(key)]
    finished = _finished_runs(client, keys)
    theirs = [key for key in keys if not finished.isdisjoint(_possible_run_ids(key))]
    with client.pipeline(transaction=False) as ask:
        for key in theirs:
            ask.ttl(key)
        return sorted(key for key, ttl_s in zip(theirs, ask.execute(), strict=True) if ttl_s == _NO_TIME_TO_LIVE)


def _finished_runs(client: redis.Redis, keys: list[str]) -> set[str]:
    run_keys = [key for key in keys if (match := _KEY.match(key)) and match["kind"] == "run"]
    with client.pipeline(transaction=False) as ask:
        for key in run_keys:
            ask.hget(key, "state")
        states = ask.execute()
    ended = [key for key, state in zip(run_keys, states, strict=True) if state in FINAL_STATES]
    return {key.split(":run:", 1)[1] for key in ended}


def _possible_run_ids(key: str) -> Iterator[str]:
    """Whatever may be the run id in a key: it ends at the key's end or before a `:` or `/`.

    A run id may hold `:` itself, so only the ids that exist tell where it ends.
    """
    match = _KEY.match(key)
    if match is None:
        return
    rest = match["rest"]
    yield rest
    for boundary in re.finditer(r"[:/]", rest):
        yield rest[: boundary.start()]
