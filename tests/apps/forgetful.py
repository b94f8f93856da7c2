"""`deadly`, in a process that loses what the first step it runs wants to record."""

from __future__ import annotations

from typing import Any

from apps.deadly import app
from status.records import Ending
from status.store import Store

_record = Store.record
_lost: list[str] = []


def _lose(self: Store, finishes: Any, given_back: Any = ()) -> list[Ending]:
    if not _lost:
        _lost.append(finishes[-1].ref.step_id)
        return [Ending("gone")]
    return _record(self, finishes, given_back)


Store.record = _lose  # type: ignore[method-assign]

__all__ = ["app"]
