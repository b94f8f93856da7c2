"""A broker that loses, repeats, delays and reorders messages, and the engine's own publisher in front of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from canvas.backlog import Backlog
from canvas.publisher import Message, Publisher

if TYPE_CHECKING:
    from simulation.world import World


@dataclass(frozen=True)
class Sent:
    """A message on a queue."""

    queue: str
    headers: dict[str, Any]
    body: Any
    at_ms: int

    @property
    def id(self) -> str:
        return str(self.headers["id"])

    @property
    def what(self) -> str:
        """For the trace: the same each time."""
        return self.id.partition("~")[0]


class SimPublisher(Publisher):
    """The real messages, sent one after the other; a process may die between any two."""

    def __init__(self, app: Any, world: World) -> None:
        super().__init__(app)
        self._world = world

    def _send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._world.boundary("before publish")
            if self._world.faults.publish_fails():
                raise OperationalError("the broker does not answer")
            now_ms = self._world.now_ms
            headers = {**message.headers, "celeriac_published_ms": now_ms}
            self._world.broker.put(Sent(message.queue, headers, message.body, now_ms))
            self._world.boundary("after publish")


class SimBacklog(Backlog):
    """The real rule, asked of the simulated queues."""

    def __init__(self, app: Any, world: World) -> None:
        super().__init__(app)
        self._world = world

    def _look(self, queue: str) -> float:
        return min((sent.at_ms for sent in self._world.broker.queues[queue]), default=float("inf"))


class Broker:
    """Queues, and what goes wrong with them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.queues: dict[str, list[Sent]] = defaultdict(list)

    def put(self, sent: Sent) -> None:
        """A message comes in."""
        faults = self._world.faults
        if faults.loses():
            self._world.note(f"lost {sent.what}")
            return
        self._world.after(faults.delay_ms(), None, self.queued, sent)
        if faults.repeats():
            self._world.note(f"repeated {sent.what}")
            self._world.after(faults.late_ms(), None, self.queued, sent)

    def queued(self, sent: Sent) -> None:
        """It lies on its queue now."""
        self.queues[sent.queue].append(sent)
        self.deliver(sent.queue)

    def give_back(self, sent: Sent) -> None:
        """A worker did not want it after all."""
        self.queued(replace(sent))

    def deliver(self, queue: str) -> None:
        """Whoever has room gets the next one."""
        waiting = self.queues[queue]
        if not waiting:
            return
        hosts = [host for host in self._world.hosts if host.has_room]
        if not hosts:
            return
        at = self._world.random.randrange(len(waiting)) if self._world.faults.reorders() else 0
        host = hosts[self._world.random.randrange(len(hosts))]
        host.receive(waiting.pop(at))

    def pull(self) -> None:
        """Somebody has room again."""
        for queue in list(self.queues):
            self.deliver(queue)

    def flush(self) -> None:
        """All that lay there is gone."""
        self._world.note("the broker was flushed")
        self.queues.clear()
