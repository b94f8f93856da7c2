"""What worlds stand on: an app, a server, and a product that asks the world for the time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import redis
from celery import Celery

from canvas import wide
from core import current_app
from saga import writing
from simulation.redis_side import SimRedis
from simulation.sagas import SimLog, in_memory

if TYPE_CHECKING:
    from simulation.world import World


@dataclass
class Ground:
    """What worlds share: one after the other stands on it."""

    app: Celery
    redis: SimRedis
    raw: redis.Redis
    connection: Any
    database: Any


@contextmanager
def ground(socket: str, db: int = 0) -> Iterator[Ground]:
    """Connect to the server at this unix socket, and make the product ask this module for the time."""
    logger = logging.getLogger("celeriac")
    with current_app("simulation", task_routes={"sim.brisk": {"queue": "brisk"}}) as app, ExitStack() as undo:
        client = SimRedis(unix_socket_path=socket, db=db, decode_responses=True)
        raw = redis.Redis(unix_socket_path=socket, db=db)
        undo.callback(client.close)
        undo.callback(raw.close)
        undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        undo.enter_context(patch.object(writing, "SagaLog", SimLog))
        for name, value in (
            ("canvas.engine.sleep", lambda s: _world().sleep(s)),
            ("canvas.engine.monotonic", lambda: _world().now_s),
            ("canvas.perform.sleep", lambda s: _world().sleep(s)),
            ("canvas.passing.monotonic", lambda: _world().now_s),
            ("canvas.perform.monotonic", lambda: _world().now_s),
            ("canvas.pulse.monotonic", lambda: _world().now_s),
            ("canvas.series.monotonic", lambda: _world().now_s),
            ("status.records.monotonic", lambda: _world().now_s),
            ("status.store.monotonic", lambda: _world().now_s),
            ("status.store_ahead.monotonic", lambda: _world().now_s),
            ("canvas.pulse.time", lambda: _world().now_s),
            ("canvas.heartbeat.worker_state", _ActiveRequests()),
            # Of each world its own, see `simulation.in_place`.
            ("canvas.wide.LEAST", wide.LEAST),
            ("canvas.wide.WINDOW", wide.WINDOW),
            ("canvas.wide.CHUNK", wide.CHUNK),
        ):
            undo.enter_context(patch(name, value))
        connection = client.connection_pool.make_connection()
        undo.callback(connection.disconnect)
        yield Ground(app, client, raw, connection, in_memory())


def _world() -> World:
    return SimLog.world


class _ActiveRequests:
    """Celery's `worker.state`, of the worker that asks."""

    @property
    def active_requests(self) -> list[Any]:
        return _world().current.host.requests


class Control:
    """Celery's remote control, by messages that may be lost."""

    def __init__(self, world: World) -> None:
        self._world = world

    def broadcast(self, _command: str, *, arguments: Any, destination: list[str], **_: Any) -> None:
        for host in self._world.hosts:
            if host.name in destination and not self._world.faults.loses():
                self._world.after(self._world.faults.delay_ms(), host.parent, host.stop_steps, arguments["tokens"])
