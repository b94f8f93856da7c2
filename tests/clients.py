"""A client that submits and asks for results, on a real Redis; broker, workers and sweep are played, as in `family`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery

from core import current_app
from family import Family
from status import here


class Client(Family):
    """What `.submit()` in this process leads to: `play()` lets the workers do their part."""

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        super().__init__(app, client)
        app.__dict__["_celeriac"] = self.engine

    def result(self, handle: Any) -> Any:
        """What the handle gives, once all is played."""
        self.play()
        return handle.result(timeout_s=5)

    def journal(self, run_id: str) -> dict[str, str]:
        found: dict[str, str] = self.redis.hgetall(self.store.keys.journal(run_id))
        return found


@contextmanager
def client(name: str, url: str, connection: redis.Redis, monkeypatch: Any) -> Iterator[Client]:
    """A client with an app of this name, whose runs are at `url`."""
    monkeypatch.setenv("CELERIAC_SHARDS", "4")  # as `Family` has them
    here._store.cache_clear()
    here.use(url)
    with current_app(name) as app:
        yield Client(app, connection)
    here.use(None)
    here._store.cache_clear()
