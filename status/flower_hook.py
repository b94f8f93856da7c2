"""What stock `celery flower` is given when it starts: secrets hidden on its own pages, figures on its `/metrics`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from status.masking import mask

#: The fields of a task's event in which there may be a secret.
TEXTS = ("args", "kwargs", "result", "exception", "traceback")


def hook(argv: list[str]) -> None:
    """Prepare Flower, if that is what `celery` was called for; called at each `celery`, and else without cost."""
    if "flower" not in argv:
        return
    try:
        from flower.command import flower  # noqa: PLC0415
    except ImportError:
        return  # it is not installed, and `celery` says so
    stock = flower.callback

    @wraps(stock)
    def start(*args: Any, **kwargs: Any) -> Any:
        install()
        return stock(*args, **kwargs)

    flower.callback = start


def install() -> None:
    """Let the Flower of this process hide secrets and show figures. Doing it twice is doing it once."""
    from flower.events import EventsState  # noqa: PLC0415

    from status import metrics  # noqa: PLC0415

    metrics.register()

    if not hasattr(EventsState.event, "__wrapped__"):
        # As events come in: so its tasks page, its search, its API and what it saves have none of them.
        EventsState.event = hiding(EventsState.event)


def hiding(stock: Callable[[Any, dict[str, Any]], Any]) -> Callable[[Any, dict[str, Any]], Any]:
    """A `State.event` that sees events without secrets."""

    @wraps(stock)
    def event(self: Any, told: dict[str, Any]) -> Any:
        return stock(self, masked(told))

    return event


def masked(event: dict[str, Any]) -> dict[str, Any]:
    """An event of a task without secrets."""
    for name in TEXTS:
        text = event.get(name)
        if isinstance(text, str) and mask().may_hide(text):
            event = {**event, name: mask().text(text)}
    return event
