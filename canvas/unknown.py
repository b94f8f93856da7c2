"""A message whose code this worker does not have: it goes back, and the run's status says why it waits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import bootsteps, signals
from redis.exceptions import RedisError

from canvas import engine as engines
from canvas.outcomes import describe
from canvas.service import step_name
from canvas.transport import MARK
from status.errors import UnknownWorkflow
from status.models import error_to_json
from status.records import PartRef

logger = logging.getLogger("celeriac")


class TurnDown(bootsteps.Step):
    """The consumer bootstep. Celery logs and drops what it does not know; other tasks' messages still are."""

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        consumer.on_unknown_task = _Unknown(consumer, consumer.on_unknown_task)


class _Unknown:
    """Stands for the consumer's `on_unknown_task`."""

    def __init__(self, consumer: Any, stock: Callable[..., None]) -> None:
        self._consumer = consumer
        self._stock = stock

    def __call__(self, body: Any, message: Any, exc: Exception) -> None:
        headers = message.headers
        if MARK not in headers:
            self._stock(body, message, exc)
            return
        name, message_id = step_name(headers["task"]), headers["id"]
        logger.error(
            "%s: this worker has no %r, it goes to another: import its module here, or take the queue it came by "
            "from this worker", message_id, name,
        )  # fmt: skip
        try:
            self._turn_down(message_id, name)
        except RedisError as error:
            # Nothing is lost: it is due, and the sweep will find that its message is gone.
            logger.warning("%s: could not say so in its status: %s", message_id, error)
        message.reject_log_error(logger, self._consumer.connection_errors)
        signals.task_unknown.send(sender=self._consumer, message=message, exc=exc, name=name, id=message_id)

    def _turn_down(self, message_id: str, name: str) -> None:
        store = engines.of(self._consumer.app).store
        worker, ref = self._consumer.hostname, PartRef.parse(message_id)
        if ref is not None:
            why = (
                f"worker {worker} has no step {name!r}: start a worker that imports it, or let only those take its "
                "queue; it goes on by itself"
            )
            store.turn_down(ref.run_id, why, ref)
        else:
            why = (
                f"worker {worker} has no workflow {name!r}: start a worker that imports it, or let only those take its "
                "queue; the run goes on by itself"
            )
            store.turn_down(message_id.partition("/")[0], error_to_json(describe(UnknownWorkflow(why))))
