"""Tells the transport how many steps a worker runs at once, so that it may fetch the next ones together."""

from __future__ import annotations

import os
from typing import Any

from celery import bootsteps

from canvas import in_hand, transport


class Prefetch(bootsteps.StartStopStep):
    """A bootstep of the worker's consumer; after a reconnect it is started again, with another channel."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _told_of: Any = None

    def start(self, consumer: Any) -> None:
        """The consumer has its channel."""
        channel = consumer.task_consumer.channel
        if isinstance(channel, transport.Channel):
            channel.processes = consumer.pool.num_processes
            channel.one_by_one = bool(consumer.app.conf.worker_disable_prefetch)
            self._tell_of(channel)

    def _tell_of(self, channel: Any) -> None:
        """The pool is told of what this channel has in hand. What the one before had is another's by now."""
        if self._told_of is not None:
            self._told_of.in_hand_of = None
        self._told_of = channel
        channel.in_hand_of = os.getpid()
        in_hand.tell(0)
