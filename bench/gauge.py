"""How many bodies ran at once: counted in Redis, by all workers together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import redis
from celery import current_app

LIVE, PEAKS = "bench:live", "bench:peaks"


@contextmanager
def counted(name: str) -> Iterator[None]:
    """Around a body."""
    client: redis.Redis = cast("Any", current_app.backend).client
    live = client.incr(f"{LIVE}:{name}")
    client.zadd(PEAKS, {name: live}, gt=True)
    try:
        yield
    finally:
        client.decr(f"{LIVE}:{name}")


def peak(client: redis.Redis, name: str) -> int:
    """The most that ran at once."""
    return int(client.zscore(PEAKS, name) or 0)
