"""Runs as Celery's monitors see them: each is a task of its own, whose id is the run's.

Celery's events know tasks only, and steps and turns come and go. So whoever records that a run has begun, is further
or has ended says so as a worker would of a task: `task-received`, `task-started`, `task-progress`, then
`task-succeeded`, `task-failed` or `task-revoked`. The run's steps and turns name it as their parent, so that stock
Flower shows it with its progress, its result and its tree. Nothing depends on these events: one that is lost is only
not seen.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from time import time
from typing import TYPE_CHECKING, Any, cast

from celery.events import Event, get_exchange
from celery.utils.time import utcoffset
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas.payload import compact
from canvas.reprs import args_repr, kwargs_repr, names_of, shorten
from canvas.telling import is_watched
from status.errors import ErrorInfo
from status.masking import mask
from status.states import State

if TYPE_CHECKING:
    from celery import Celery

    from status.records import News, RunRecord

logger = logging.getLogger("celeriac")


class RunEvents:
    """Tells monitors of runs. Silent, and without cost, where the worker sends no events of tasks."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    @property
    def on(self) -> bool:
        """Whether somebody wants to be told."""
        return is_watched()

    def moved(self, record: RunRecord, news: News) -> None:
        """A turn was recorded that goes on."""
        self.went([(record, news)])

    def went(self, ways: Sequence[tuple[RunRecord, News]]) -> None:
        """The same of several awaits, in one message: the run as it was before each, and what was said then."""
        if self.on:
            self._send([event for way in ways for event in (*self._begun(way[0]), *self._progress(*way))])

    def ended(self, record: RunRecord, news: News, state: State, result: str, error: ErrorInfo | None) -> None:
        """A run has ended."""
        if self.on:
            runtime_s = time() - int(record.fields["submitted_ms"]) / 1000
            end = self._end(record.run_id, state, result, error, runtime_s)
            self._send([*self._begun(record), *self._progress(record, news), end])

    def _begun(self, record: RunRecord) -> list[dict[str, Any]]:
        if record.fields["state"] != State.PENDING:
            return []
        args, kwargs = json.loads(record.fields["input"])
        names = names_of(self._app, record.workflow, args, kwargs)
        parent = record.fields.get("parent", "").partition("/")[0] or None
        told = {
            "name": record.workflow,
            "args": args_repr(names, args),
            "kwargs": kwargs_repr(kwargs),
            "root_id": record.run_id,
            "parent_id": parent,
            "retries": 0,
        }
        received = self._event("task-received", record.run_id, **told)
        received["timestamp"] = int(record.fields["submitted_ms"]) / 1000
        return [received, self._event("task-started", record.run_id)]

    def _progress(self, record: RunRecord, news: News) -> list[dict[str, Any]]:
        if news.status is None:
            return []
        phase, progress, _ = news.status
        # `result` is what Flower has a column for.
        said = f"{progress:.0%} {phase}".rstrip()
        return [self._event("task-progress", record.run_id, result=said, phase=phase, progress=progress)]

    def _end(self, run_id: str, state: State, result: str, error: ErrorInfo | None, took_s: float) -> dict[str, Any]:
        if error is None:
            shown = mask().json(result) if mask().may_hide(result) else result
            return self._event("task-succeeded", run_id, result=shorten(shown), runtime=took_s)
        said = f"{state}: {error.error_type.rpartition('.')[2]}: {mask().text(error.message)}"
        if state is State.CANCELLED:
            return self._event("task-revoked", run_id, terminated=False, signum=None, expired=False, result=said)
        return self._event("task-failed", run_id, exception=said, traceback=mask().text(error.traceback))

    def _event(self, kind: str, run_id: str, **fields: Any) -> dict[str, Any]:
        clock = cast("Any", self._app).clock.forward()
        return Event(kind, hostname=self._hostname(), utcoffset=utcoffset(), pid=0, clock=clock, uuid=run_id, **fields)

    def _hostname(self) -> str:
        from canvas.in_place import place_of  # noqa: PLC0415  # it needs the engine, which needs this

        place = place_of(self._app)
        return "unknown" if place is None else place.where

    def _send(self, events: list[dict[str, Any]]) -> None:
        if not events:
            return
        try:
            with self._app.producer_pool.acquire(block=True) as pooled:
                producer = cast("Any", pooled)
                exchange = get_exchange(producer.connection, name=self._app.conf.event_exchange)
                producer.publish(
                    events,
                    exchange=exchange.name,
                    routing_key="task.multi",
                    declare=[exchange],
                    serializer=self._app.conf.event_serializer,
                    headers={"hostname": self._hostname()},
                    delivery_mode=1,
                )
        except (OperationalError, RedisError, OSError) as error:
            logger.debug("monitors were not told of %s: %s", compact(events[0]["uuid"]), error)
