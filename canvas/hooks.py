"""Hooks of Celery's that a step is given as options: what they may do to its outcome."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

#: Those that end a step here, and what to use in their place.
TAKEN = {
    "on_retry": "connect to Celery's signal task_retry",
    "after_return": "connect to Celery's signal task_postrun",
    "__call__": "put it into the function",
}


def guarded(before_start: Callable[..., Any]) -> Callable[..., None]:
    """A hook that Celery calls before a step is claimed: what it raises is kept, as what the attempt came to."""

    @wraps(before_start)
    def guarded_hook(task: Any, *args: Any) -> None:
        try:
            before_start(task, *args)
        except Exception as error:  # noqa: BLE001  # the user's own, as in the body
            task.request.celeriac_unfit = error

    return guarded_hook


def failed(request: Any) -> Exception | None:
    """What the hook before this attempt raised."""
    return getattr(request, "celeriac_unfit", None)
