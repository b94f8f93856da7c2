"""The store of this process: found once, shared by all that ask."""

from __future__ import annotations

import threading
from functools import cache

from redis import Redis

from status.places import places, without_password
from status.reading import Reader
from status.settings import Settings
from status.store import Store

#: A server that says nothing for so long is gone. Longer than any blocking read (`reading.BLOCK_MS`).
SOCKET_TIMEOUT_S = 15

_lock = threading.Lock()
_url: str | None = None


def use(redis_url: str | None) -> None:
    """Say where the runs of this process are; None: where `places()` says."""
    global _url  # noqa: PLW0603  # one place a process is the point
    with _lock:
        _url = redis_url


def store() -> Store:
    """The transitions.

    Raises:
        ConfigError: A setting is wrong, or this Redis was used with another number of shards.
    """
    return _store(_url or places().redis_url)


def reader() -> Reader:
    """The status of runs."""
    found = store()
    return Reader(found.redis, found.keys)


def connect(redis_url: str) -> Redis:
    """A client that gives text and keeps its connections alive."""
    return Redis.from_url(
        redis_url,
        decode_responses=True,
        health_check_interval=30,
        socket_keepalive=True,
        socket_timeout=SOCKET_TIMEOUT_S,
    )


@cache
def _store(redis_url: str) -> Store:
    made = Store(connect(redis_url), Settings.from_environment())
    made.check_layout()
    return made


def where() -> str:
    """Where the runs are, without the password."""
    return without_password(_url or places().redis_url)
