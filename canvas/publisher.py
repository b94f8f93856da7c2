"""Puts messages on the broker: the steps of a join in one batch, and turns."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from time import time
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

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
                self._send(producer, ref, spec, workflow)

    def _send(self, producer: Any, ref: PartRef, spec: dict[str, Any], workflow: str) -> None:
        args, kwargs = spec.get("args", []), spec.get("kwargs", {})
        message = self.app.amqp.as_task_v2(
            ref.message_id,
            spec["task"],
            args,
            kwargs,
            group_id=f"{ref.run_id}/{ref.n}",
            group_index=int(ref.p.rstrip("u")),
            retries=ref.attempt - 1,
            chord={"task": workflow, "args": [ref.run_id], "kwargs": {}, "options": {}, "immutable": True},
            root_id=ref.run_id,
            parent_id=ref.run_id,
            shadow=spec["label"] if spec["label"] != spec["task"] else None,
            ignore_result=True,
            argsrepr=_shorten(compact(args)),
            kwargsrepr=_shorten(compact(kwargs)),
            create_sent_event=self.app.conf.task_send_sent_event,
        )
        headers = {"celeriac_published_ms": int(time() * 1000)}
        for mark in ("undoes", "retry", "log"):
            if spec.get(mark):
                headers[f"celeriac_{mark}"] = spec[mark]
        options = {"priority": spec["priority"]} if "priority" in spec else {}
        self.app.amqp.send_task_message(
            producer, spec["task"], message, queue=spec["queue"], headers=headers, **options
        )

    def turn(self, run_id: str, workflow: str, queue: str, *, first: bool = False) -> None:
        """Send a turn of a run; the first one yields to all that has begun."""
        message = self.app.amqp.as_task_v2(
            f"{run_id}/turn~{uuid4().hex[:12]}",
            workflow,
            (run_id,),
            {},
            root_id=run_id,
            ignore_result=True,
            create_sent_event=self.app.conf.task_send_sent_event,
        )
        with self.app.producer_pool.acquire(block=True) as producer:
            self.app.amqp.send_task_message(
                producer,
                workflow,
                message,
                queue=queue,
                headers={"celeriac_published_ms": int(time() * 1000)},
                priority=LAST if first else FIRST,
            )


def _shorten(text: str) -> str:
    return text if len(text) <= REPR_LIMIT else text[:REPR_LIMIT] + "…"
