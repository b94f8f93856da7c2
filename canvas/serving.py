"""Steps as a worker serves them to other code bases: by the name that a `ServiceClient` sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps

from canvas.service import MARK

#: Set in the headers of a message that came so.
HEADER = "celeriac_service"


class Serving(bootsteps.Step):
    """The consumer bootstep: each step is known by a second name, see `canvas.service.MARK`."""

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        stock = consumer.update_strategies

        def update_strategies() -> None:
            stock()
            for name, task in consumer.app.tasks.items():
                if hasattr(task, "codec") and not getattr(task, "is_workflow", False):
                    consumer.strategies[name + MARK] = _under(name, consumer.strategies[name])

        consumer.update_strategies = update_strategies


def _under(name: str, strategy: Callable[..., Any]) -> Callable[..., Any]:
    def take(message: Any, *more: Any) -> Any:
        # Not in place: a message that goes back to its queue goes as it came.
        message.headers = {**message.headers, "task": name, HEADER: True}
        return strategy(message, *more)

    return take
