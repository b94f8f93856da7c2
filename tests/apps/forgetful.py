"""`deadly`, in a process that loses what the first step it runs wants to record."""

from __future__ import annotations

from typing import Any

from apps.deadly import app
from status.records import Ending
from status.store import Store

_finish = Store.finish
_lost: list[str] = []


def _lose(self: Store, ref: Any, **more: Any) -> Ending:
    if not _lost:
        _lost.append(ref.step_id)
        return Ending("gone")
    return _finish(self, ref, **more)


Store.finish = _lose  # type: ignore[method-assign]

__all__ = ["app"]
