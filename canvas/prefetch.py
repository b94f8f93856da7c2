"""Tells the transport how many steps a worker runs at once, so that it may fetch the next ones together."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from canvas import in_hand, transport


class Prefetch(bootsteps.StartStopStep):
    """A bootstep of the worker's consumer; after a reconnect it is started again, with another channel."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """The consumer has its channel."""
        in_hand.tell(0)  # what the one before had is another's
        channel = consumer.task_consumer.channel
        if isinstance(channel, transport.Channel):
            channel.processes = consumer.pool.num_processes
            channel.one_by_one = bool(consumer.app.conf.worker_disable_prefetch)
