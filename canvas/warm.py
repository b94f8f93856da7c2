"""What a pool process would do at its first step or turn is done before: it may be young, since another was killed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas import engine as engines
from canvas import transport
from status.errors import OrchestrationError

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celeriac")

#: A pool gives up a process that is not there after 4 s (`worker_proc_alive_timeout`).
PATIENCE_S = 1.0


def compile_codecs(app: Celery) -> None:
    """Read the types of all steps and workflows. Once in a worker, before its pool forks."""
    for name, task in app.tasks.items():
        codec = getattr(task, "codec", None)
        if codec is None:
            continue
        try:
            codec.compile()
        except (OrchestrationError, NameError) as error:
            logger.warning("%s: each call of it will fail: %s", name, error)


def connect(app: Celery, **_: Any) -> None:
    """Connect a new pool process to Redis and then, if that answers, to the broker."""
    try:
        engines.of(app).store.connect(PATIENCE_S)
        with app.producer_pool.acquire(block=True) as pooled:
            channel = cast("Any", pooled).channel
            if transport.puts(channel):
                channel.batch_connection().connect()
    except (RedisError, OperationalError, OSError) as error:
        logger.debug("not connected yet: %s", error)  # whoever needs it tries again, and says so
