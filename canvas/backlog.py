"""Whether a message that nobody has begun must be lost, or only waits its turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from celery import Celery


class Backlog:
    """What lies on the queues, looked at once in each round of the sweep.

    A message that still waits must not be sent again: a backlog that is doubled whenever somebody finds it
    slow never drains. On Redis it is lost if its queue is empty, or if the oldest message there is younger.
    Other brokers can't be asked; there the sweep's doubling waits are all there is.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._oldest_ms: dict[str, float] = {}

    def look_again(self) -> None:
        """Forget what was seen."""
        self._oldest_ms.clear()

    def is_lost(self, queue: str, since_ms: int) -> bool:
        """Whether a message that was sent to `queue` at `since_ms` or before can't be there any more."""
        if queue not in self._oldest_ms:
            self._oldest_ms[queue] = self._look(queue)
        return self._oldest_ms[queue] > since_ms

    def sizes(self, queues: Sequence[str]) -> dict[str, int]:
        """How many messages lie on each queue; {} if the broker can't be asked."""
        with self.app.connection_or_acquire() as connection:
            if connection.transport.driver_type != "redis":
                return {}
            channel = cast("Any", connection.default_channel)
            with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for queue in queues:
                    for step in channel.priority_steps:
                        pipe.llen(channel._q_for_pri(queue, step))  # noqa: SLF001
                lengths = pipe.execute()
            each = len(channel.priority_steps)
            return {queue: sum(lengths[at * each : (at + 1) * each]) for at, queue in enumerate(queues)}

    def _look(self, queue: str) -> float:
        """When the oldest message of a queue was sent, ms; infinity if it is empty, 0 if nobody can tell."""
        with self.app.connection_or_acquire() as connection:
            if connection.transport.driver_type != "redis":
                return float("inf")
            channel = cast("Any", connection.default_channel)
            # One list for each priority; the oldest message is at its right end.
            lists = [channel._q_for_pri(queue, step) for step in channel.priority_steps]  # noqa: SLF001
            with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for name in lists:
                    pipe.lindex(name, -1)
                oldest = [text for text in pipe.execute() if text]
        return min(map(_sent_ms, oldest), default=float("inf"))


def _sent_ms(text: str | bytes) -> float:
    headers = json.loads(text).get("headers") or {}
    return float(headers.get("celeriac_published_ms") or 0)
