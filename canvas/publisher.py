"""Puts messages on the broker: the steps of a join in one batch, and turns."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property
from time import time
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from celery import signals
from celery.app.amqp import task_message
from celery.utils.nodenames import anon_nodename

from canvas.payload import compact
from status.records import PartRef

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celeriac")

#: Priorities as Redis has them: 0 goes first. Runs that have begun are ended before others begin: under a
#: backlog each is done sooner, and fewer are open at once.
FIRST, LAST = 0, 9

#: An argument list longer than this is cut in Flower and in logs.
REPR_LIMIT = 200


class Publisher:
    """Sends what has been recorded. A failed send loses nothing: what was not sent is due."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._origin = anon_nodename()

    @cached_property
    def _tells_of_sending(self) -> bool:
        return bool(self.app.conf.task_send_sent_event)

    def steps(self, messages: Iterable[tuple[PartRef, dict[str, Any]]], workflow: str) -> None:
        """Send steps, all in one batch: each a header task of a chord whose body is the next turn.

        Args:
            messages: The part and its spec (see `Call.spec`).
        """
        rows = list(messages)
        if not rows:
            return
        with self.app.producer_pool.acquire(block=True) as producer, cast("Any", producer).batch():
            for ref, spec in rows:
                self._send(producer, spec["task"], self._step(ref, spec, workflow), spec["queue"], spec.get("priority"))

    def turn(self, run_id: str, workflow: str, queue: str, *, first: bool = False) -> None:
        """Send a turn of a run; the first one yields to all that has begun."""
        headers = self._headers(f"{run_id}/turn~{uuid4().hex[:12]}", workflow, [run_id], {}, run_id)
        body: tuple[Any, ...] = ([run_id], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
        with self.app.producer_pool.acquire(block=True) as producer:
            self._send(producer, workflow, (headers, body), queue, LAST if first else FIRST)

    def _step(self, ref: PartRef, spec: dict[str, Any], workflow: str) -> tuple[dict[str, Any], Any]:
        args, kwargs = spec.get("args", []), spec.get("kwargs", {})
        headers = self._headers(ref.message_id, spec["task"], args, kwargs, ref.run_id)
        headers |= {
            "group": f"{ref.run_id}/{ref.n}",
            "group_index": int(ref.p.rstrip("u")),
            "retries": ref.attempt - 1,
            "parent_id": ref.run_id,
            "shadow": spec["label"] if spec["label"] != spec["task"] else None,
        }
        for mark in ("undoes", "retry", "log"):
            if spec.get(mark):
                headers[f"celeriac_{mark}"] = spec[mark]
        chord = {"task": workflow, "args": [ref.run_id], "kwargs": {}, "options": {}, "immutable": True}
        return headers, (args, kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": chord})

    def _headers(self, message_id: str, task: str, args: Any, kwargs: Any, root_id: str) -> dict[str, Any]:
        """Celery's task protocol 2, as `amqp.as_task_v2` has it, and when it was sent."""
        return {
            "lang": "py",
            "task": task,
            "id": message_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": root_id,
            "parent_id": None,
            "argsrepr": _shorten(compact(args)),
            "kwargsrepr": _shorten(compact(kwargs)),
            "origin": self._origin,
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "celeriac_published_ms": int(time() * 1000),
        }

    def _send(self, producer: Any, task: str, message: tuple[dict[str, Any], Any], queue: str, priority: Any) -> None:
        headers, body = message
        properties = {"correlation_id": headers["id"], "reply_to": ""}
        if priority is not None:
            properties["priority"] = priority
        events = self._tells_of_sending
        listeners = signals.before_task_publish.receivers or signals.after_task_publish.receivers
        if events or listeners or self._needs_declaring(producer):
            # All that Celery does for a message, for those who watch it.
            sent = task_message(headers, properties, body, _sent_event(headers) if events else None)
            self.app.amqp.send_task_message(producer, task, sent, queue=queue)
            return
        producer.publish(
            compact(body),
            exchange="",
            routing_key=queue,
            content_type="application/json",
            content_encoding="utf-8",
            headers=headers,
            delivery_mode=1,  # which Redis does not ask for
            **properties,
        )

    @staticmethod
    def _needs_declaring(producer: Any) -> bool:
        # A list of Redis is there when something is put on it; other brokers drop what has no queue.
        return bool(producer.connection.transport.driver_type != "redis")


def _sent_event(headers: dict[str, Any]) -> dict[str, Any]:
    """What the event `task-sent` tells."""
    return {
        "uuid": headers["id"],
        "root_id": headers["root_id"],
        "parent_id": headers["parent_id"],
        "name": headers["task"],
        "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"],
        "retries": headers["retries"],
        "eta": None,
        "expires": None,
    }


def _shorten(text: str) -> str:
    return text if len(text) <= REPR_LIMIT else text[:REPR_LIMIT] + "…"
