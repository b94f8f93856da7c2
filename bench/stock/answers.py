"""How a stock task tells the client that it is done: it pushes, and the client waits by BLPOP.

`AsyncResult.get()` would cost the client a subscription and a GET for each.
"""

from __future__ import annotations

from typing import Any, cast

import redis
from celery import current_app


def push(key: str, answer: str) -> None:
    """Called in a task; its key goes by itself, should nobody read it."""
    client: redis.Redis = cast("Any", current_app.backend).client  # its pool is shared by the process
    pipe = client.pipeline(transaction=False)
    pipe.lpush(key, answer)
    pipe.expire(key, 600)
    pipe.execute()


def connect(redis_url: str) -> redis.Redis:
    """A client whose blocking reads have a timeout of their own: redis-py 8 gives up after 5 s otherwise."""
    return redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=None)


def pop(client: redis.Redis, key: str, timeout_s: float) -> str | None:
    """The next answer; None: there was none in time."""
    answer = client.blpop([key], timeout=max(timeout_s, 0.001))
    return None if answer is None else str(answer[1])
