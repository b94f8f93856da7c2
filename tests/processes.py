"""What tests of dying workers share: the client's side of `tests/apps/deadly.py`, and messages in their hands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import redis
from celery import _state

from canvas import engine as engines
from status import here
from status.records import PartRef, Publishable
from waiting import wait_until

#: kombu's suffixes of a queue's lists, one a priority.
LISTS = ("", "\x06\x163", "\x06\x166", "\x06\x169")


@contextmanager
def client_of(app: Any, url: str) -> Iterator[None]:
    """Let this process be a client of that app."""
    before = _state._tls.current_app
    app.conf.broker_url = url
    here.use(url)
    app.set_current()
    try:
        yield
    finally:
        here.use(None)
        _state._tls.current_app = before


def queued(client: redis.Redis, queue: str = "celery") -> int:
    """How many messages wait on a queue."""
    return sum(int(client.llen(queue + suffix)) for suffix in LISTS)


def steal(client: redis.Redis, queue: str = "celery") -> list[tuple[str, str]]:
    """Take every message off a queue, as whoever dies with them in hand. Gives (list, message)."""
    stolen = []
    for suffix in LISTS:
        while text := client.rpop(queue + suffix):
            stolen.append((queue + suffix, text))
    return stolen


def send_again(app: Any, run_id: str) -> None:
    """Send the message of the first attempt of a run's first step once more, as a broker does that thinks it lost."""
    store = here.store()
    nonce, spec = store.redis.hmget(store.keys.join(run_id, 0), ["nonce", "s0"])
    engines.of(app).publish(run_id, [Publishable(PartRef(run_id, 0, "0", str(nonce), 1), str(spec), "")])


def due() -> list[str]:
    """Everything that is due."""
    store = here.store()
    return [member for shard in range(store.keys.shards) for member in store.redis.zrange(store.keys.due(shard), 0, -1)]


def children(pid: int) -> list[int]:
    """The pool processes of a worker."""
    return [child.pid for child in psutil.Process(pid).children()]


def kill_child(node: Any) -> None:
    """Kill one pool process of a worker that has one."""
    (child, *_) = wait_until(lambda: children(node.pid), "the pool has a process")
    psutil.Process(child).kill()
