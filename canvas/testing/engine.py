"""The engine of a test: the product's own, with the test's world for broker and workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from canvas import children
from canvas.engine import Engine
from canvas.publisher import Message, Publisher
from canvas.pulse import Sweeper
from status.records import Claim, PartRef

if TYPE_CHECKING:
    from celery import Celery

    from canvas.testing.world import World


class PlayedPublisher(Publisher):
    """Real messages, into the world's own queue."""

    def __init__(self, app: Celery, world: World) -> None:
        super().__init__(app)
        self._world = world

    def _send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._world.deaths.boundary("before", "publish")
            self._world.put(message)
            self._world.deaths.boundary("after", "publish")


class PlayedEngine(Engine):
    """Stops steps in the world's own worker, and lets the fake of what is no step take its place."""

    def __init__(self, app: Celery, world: World) -> None:
        super().__init__(app, world.store)
        self.publisher = PlayedPublisher(app, world)
        self._world = world

    def send(self, run_id: str, rows: list[tuple[PartRef, dict[str, Any]]], workflow: str) -> None:
        super().send(run_id, [row for row in rows if not self._world.put_fake(*row)], workflow)

    def in_place(self) -> None:
        """Nothing: each step is a message, also in a process that was a worker's once."""
        return

    def stop(self, claims: Sequence[Claim]) -> None:
        self._world.bodies.kill({claim.token for claim in claims if claim.interruptible})
        children.stop(self, claims)


class PlayedSweeper(Sweeper):
    """Finds what got lost: whatever is due when all messages were taken."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, "test")
        self.backlog = _NothingQueued()  # type: ignore[assignment]
        self.__dict__["_asks_queues"] = True


class _NothingQueued:
    """Stands for the backlog: who asks has seen that each message was taken."""

    def is_lost(self, *_: Any) -> bool:
        return True

    def look_again(self) -> None:
        pass
