"""How full an app's queues are, and how long their oldest messages have waited."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import time
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas.backlog import Backlog
from status.figures import Queue

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celeriac")


def look(app: Celery) -> Sequence[Queue]:
    """The queues that an app has, in its settings and by its steps; () if its broker can't be asked."""
    try:
        return _look(app)
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("no figures of queues: the broker does not answer: %s", error)
        return ()


def _look(app: Celery) -> Sequence[Queue]:
    app.loader.import_default_modules()
    names = {*app.amqp.queues} | {task.queue_of({}) for task in list(app.tasks.values()) if hasattr(task, "queue_of")}
    backlog = Backlog(app)
    sizes = backlog.sizes(sorted(names))
    oldest_ms = backlog.oldest([name for name, size in sizes.items() if size])
    now_ms = time() * 1000
    return tuple(
        Queue(name, size, max(0.0, (now_ms - oldest_ms[name]) / 1000) if oldest_ms.get(name) else None)
        for name, size in sizes.items()
    )
