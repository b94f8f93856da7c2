"""Celery's Redis result backend, in whose chord hooks steps end."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend

from canvas import settling
from status.records import PartRef


class RunBackend(RedisBackend):
    """What is not a step's is left to Celery's own backend, stock chords included."""

    app: Celery
    connparams: dict[str, Any]
    _told: Any = None

    def _add_driver_info(self) -> None:
        # Once: each thread of a worker has a backend of its own (`Celery.backend`), and for each of them redis-py
        # would look for its version among all installed packages.
        if RunBackend._told is None:
            super()._add_driver_info()  # type: ignore[misc]  # not in celery-types
            RunBackend._told = self.connparams.get("driver_info")
        else:
            self.connparams["driver_info"] = RunBackend._told

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: bool | None = None, **kwargs: Any
    ) -> None:
        """A header task has returned. If it is a step of a run, write its outcome down and go on.

        Raises nothing for a step: the tracer would take an error here for the step's own.
        """
        ref = PartRef.parse(request.id or "")
        if ref is None:
            super().on_chord_part_return(request, state, result, propagate, **kwargs)
            return
        settling.write_down(request, self.app)
