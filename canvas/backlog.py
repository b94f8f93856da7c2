"""Whether a message that nobody has begun must be lost, or only waits its turn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from time import time
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from celery import Celery

#: Messages sent again that are remembered. Who forgets one may send it once too often.
REMEMBERED = 10_000


def can_be_asked(app: Celery) -> bool:
    """Whether an app's broker says what lies on a queue."""
    with app.connection_for_write() as connection:
        return bool(connection.transport.driver_type == "redis")


class Backlog:
    """What lies on the queues, looked at once in each round of the sweep.

    A message that still waits must not be sent again: a backlog that is doubled whenever somebody finds it
    slow never drains. On Redis it is lost if its queue has none of its priority, or if the oldest one there
    is younger. Other brokers can't be asked; there the sweep's doubling waits are all there is.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._oldest_ms: dict[tuple[str, int], float] = {}
        self._again_ms: dict[str, int] = {}

    def look_again(self) -> None:
        """Forget what was seen."""
        self._oldest_ms.clear()

    def is_lost(self, member: str, queue: str, since_ms: int, priorities: Iterable[int]) -> bool:
        """Whether the message of a due thing, sent to `queue` by `since_ms`, can't be there any more.

        Who hears so sends it again: the next answer is about that message.

        Args:
            priorities: Those that it may have been sent with. Each is a list of its own, in the order of sending.
        """
        if not self._can_be_asked:
            return True
        sent_ms = max(since_ms, self._again_ms.get(member, 0))
        if any(self._oldest(queue, priority) <= sent_ms for priority in priorities):
            return False
        if len(self._again_ms) >= REMEMBERED:
            self._again_ms.clear()
        self._again_ms[member] = int(time() * 1000)
        return True

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

    def oldest(self, queues: Sequence[str]) -> dict[str, float]:
        """When the oldest message of each queue was sent, ms; those are left out that have none which says so."""
        with self.app.connection_or_acquire() as connection:
            steps = cast("Any", connection.default_channel).priority_steps
        found = {queue: [self._look(queue, step) for step in steps] for queue in queues}
        told = {queue: [ms for ms in all_ms if 0 < ms < float("inf")] for queue, all_ms in found.items()}
        return {queue: min(all_ms) for queue, all_ms in told.items() if all_ms}

    @cached_property
    def _can_be_asked(self) -> bool:
        return can_be_asked(self.app)

    def _oldest(self, queue: str, priority: int) -> float:
        if (queue, priority) not in self._oldest_ms:
            self._oldest_ms[queue, priority] = self._look(queue, priority)
        return self._oldest_ms[queue, priority]

    def _look(self, queue: str, priority: int) -> float:
        """When the oldest message of a queue was sent, ms; infinity if it has none, 0 if it does not say."""
        with self.app.connection_or_acquire() as connection:
            channel = cast("Any", connection.default_channel)
            key = channel._q_for_pri(queue, priority)  # noqa: SLF001
            with channel.conn_or_acquire() as client:
                oldest = client.lindex(key, -1)  # messages are taken from the right end
        return _sent_ms(oldest) if oldest else float("inf")


def _sent_ms(text: str | bytes) -> float:
    headers = json.loads(text).get("headers") or {}
    return float(headers.get("celeriac_published_ms") or 0)
