"""Looks for keys that would stay in Redis for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import cast

from redis import Redis

from status.doctor_words import Finding, many, ok, some, warning
from status.keys import PREFIX, possible_owners
from status.states import FINAL

#: A look at all keys of a big Redis would take minutes.
MOST_KEYS = 50_000
MOST_S = 1.0
_CHUNK = 1000
_FOR_EVER = -1


def scan_keys(redis: Redis) -> Iterator[Finding]:
    """Sample the keys: which of them are of no run that goes on, and yet have no end."""
    end_s, seen, cursor = monotonic() + MOST_S, 0, 0
    endless: list[str] = []
    while True:
        cursor, keys = cast("tuple[int, list[str]]", redis.scan(cursor, match=f"{PREFIX}:*", count=_CHUNK))
        seen += len(keys)
        endless += without_end(redis, keys)
        if not cursor or seen >= MOST_KEYS or monotonic() > end_s:
            break
    yield verdict(endless, seen, complete=not cursor)


def verdict(endless: Iterable[str], seen: int, *, complete: bool) -> Finding:
    """What a sample of keys says."""
    of = many(seen, "key") if complete else f"the first {many(seen, 'key')}"
    listed = sorted(set(endless))
    if not listed:
        return ok("redis.keys", f"{of} looked at: each has an end, or belongs to a run that goes on")
    return warning(
        "redis.keys",
        f"{len(listed):,} of {of} belong to no run that goes on and have no time to live ({some(listed, 2)})",
        "delete them (UNLINK KEY); and tell the authors of celeriac how they came about",
    )


def without_end(redis: Redis, keys: Iterable[str]) -> list[str]:
    """Those of the keys that have no time to live, and no run that goes on."""
    owners = {key: ids for key in keys if (ids := possible_owners(key))}
    if not owners:
        return []
    pipe = redis.pipeline(transaction=False)
    for key in owners:
        pipe.ttl(key)
    lasting = [key for key, ttl_s in zip(owners, pipe.execute(), strict=True) if ttl_s == _FOR_EVER]
    states = _states(redis, {run for key in lasting for run in owners[key].values()})
    # Asked after the state: a run that has begun since then has not ended.
    suspects = [key for key in lasting if not goes_on(owners[key], states)]
    return _still_there(redis, suspects)


def goes_on(owners: Mapping[str, str], states: Mapping[str, str | None]) -> bool:
    """Whether a key belongs to a run that goes on: to any of those that it may belong to.

    Args:
        owners: Run id -> its run key.
        states: Run key -> its state; None: it is not there.
    """
    found = [states.get(key) for key in owners.values()]
    return any(state is not None and state not in FINAL for state in found)


def _states(redis: Redis, run_keys: Iterable[str]) -> dict[str, str | None]:
    wanted = list(run_keys)
    pipe = redis.pipeline(transaction=False)
    for key in wanted:
        pipe.hget(key, "state")
    return dict(zip(wanted, pipe.execute(), strict=True)) if wanted else {}


def _still_there(redis: Redis, keys: list[str]) -> list[str]:
    """Of a run that ended between two looks all keys have a time to live by now."""
    if not keys:
        return []
    pipe = redis.pipeline(transaction=False)
    for key in keys:
        pipe.ttl(key)
    return [key for key, ttl_s in zip(keys, pipe.execute(), strict=True) if ttl_s == _FOR_EVER]
