"""Puts messages on the broker: the steps of a join in one batch, and turns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from celery import signals
from celery.app.amqp import task_message
from celery.utils.nodenames import anon_nodename
from kombu.exceptions import OperationalError

from canvas import transport
from canvas.payload import compact
from canvas.reprs import args_repr, kwargs_repr, names_of
from canvas.telling import is_watched
from status.records import PartRef
from status.tokens import new_token

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celeriac")

#: Priorities as Redis has them: 0 goes first. Runs that have begun are ended before others begin: under a
#: backlog each is done sooner, and fewer are open at once.
FIRST, LAST = 0, 9

#: Messages in one write to Redis.
BATCH_SIZE = 500


class Message(NamedTuple):
    """A task message, before it is put in a broker's form."""

    queue: str
    headers: dict[str, Any]
    body: Any
    priority: int | None

    @property
    def properties(self) -> dict[str, Any]:
        """Of the message as AMQP has them."""
        own: dict[str, Any] = {"correlation_id": self.headers["id"], "reply_to": ""}
        return own if self.priority is None else {**own, "priority": self.priority}


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
        self._send([self.step(ref, spec, workflow) for ref, spec in messages])

    def turn(self, run_id: str, workflow: str, queue: str, *, first: bool = False, again: int | None = None) -> None:
        """Send a turn of a run; the first one yields to all that has begun.

        Args:
            again: It was sent before; so many processes are known to have died of it.
        """
        headers = self._headers(f"{run_id}/turn~{new_token()[:12]}", workflow, f"({run_id})", "{}", run_id)
        headers["shadow"] = f"{workflow} turn"
        headers |= {transport.TURN: 1} if again is None else {"celeriac_again": again}
        body: tuple[Any, ...] = ([run_id], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
        self._send([Message(queue, headers, body, LAST if first else FIRST)])

    def step(self, ref: PartRef, spec: dict[str, Any], workflow: str) -> Message:
        """The message of a step: a header task of a chord whose body is the next turn."""
        args, kwargs = spec.get("args", []), spec.get("kwargs", {})
        shown, named = self._reprs(spec["task"], args, kwargs)
        headers = self._headers(ref.message_id, spec["task"], shown, named, ref.run_id)
        headers |= {
            "group": f"{ref.run_id}/{ref.n}",
            "group_index": int(ref.p.rstrip("u")),
            "retries": ref.attempt - 1,
            "shadow": spec["label"] if spec["label"] != spec["task"] else None,
        }
        for mark in ("undoes", "key", "retry", "log", "once", "batch"):
            if spec.get(mark):
                headers[f"celeriac_{mark}"] = spec[mark]
        chord = {"task": workflow, "args": [ref.run_id], "kwargs": {}, "options": {}, "immutable": True}
        body = (args, kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": chord})
        return Message(spec["queue"], headers, body, spec.get("priority"))

    def _reprs(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, str]:
        """Arguments as people see them; they cost more than the rest of a message, and without events nobody looks."""
        if not is_watched():
            return "(…)", "{…}"
        return args_repr(names_of(self.app, task, args, kwargs), args), kwargs_repr(kwargs)

    def _headers(self, message_id: str, task: str, args: str, kwargs: str, run_id: str) -> dict[str, Any]:
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
            # Of the run, which monitors see as a task of its own (`canvas/run_events.py`) that has steps and turns.
            "root_id": run_id,
            "parent_id": run_id,
            "argsrepr": args,
            "kwargsrepr": kwargs,
            "origin": self._origin,
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "celeriac_published_ms": int(time() * 1000),
        }

    def _send(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        with self.app.producer_pool.acquire(block=True) as pooled:
            producer = cast("Any", pooled)
            listeners = signals.before_task_publish.receivers or signals.after_task_publish.receivers
            if listeners or self._tells_of_sending or not transport.puts(producer.channel):
                with producer.batch():
                    for message in messages:
                        self._publish(producer, message)
            else:
                self._put_surely(producer.channel, messages)

    def _publish(self, producer: Any, message: Message) -> None:
        """All that Celery does for a message: routes, declarations, signals, the event that it was sent."""
        properties = message.properties
        event = _sent_event(message.headers) if self._tells_of_sending else None
        sent = task_message(message.headers, properties, message.body, event)
        self.app.amqp.send_task_message(producer, message.headers["task"], sent, queue=message.queue)

    def _put_surely(self, channel: Any, messages: Sequence[Message]) -> None:
        try:
            self._put(channel, messages)
        except OperationalError:
            # A connection that was kept open and has been cut meanwhile; the next try makes a new one. What arrives
            # twice does no harm: a step is begun once, and a second turn finds the journal moved on.
            self._put(channel, messages)

    @staticmethod
    def _put(channel: Any, messages: Sequence[Message]) -> None:
        """The same on the wire, where nobody watches: straight into the batch that `Producer.batch()` would fill."""
        batch = channel.create_publish_batch(max_size=BATCH_SIZE)
        try:
            for message in messages:
                batch.put(message.queue, message.headers, compact(message.body), message.properties)
            batch.flush()
        finally:
            batch.close()


def tell_publishing(message: Message) -> None:
    """Tell those who watch publishing of a message that is not sent: tracers put their headers into it."""
    told = {"sender": message.headers["task"], "body": message.body, "headers": message.headers}
    to = {"exchange": "", "routing_key": message.queue}
    if signals.before_task_publish.receivers:
        signals.before_task_publish.send(**told, **to, declare=[], properties=message.properties, retry_policy=None)
    if signals.after_task_publish.receivers:
        signals.after_task_publish.send(**told, **to)


def _sent_event(headers: dict[str, Any]) -> dict[str, Any]:
    """What the event `task-sent` tells."""
    return {
        "uuid": headers["id"],
        "root_id": headers["root_id"],
        "parent_id": headers["parent_id"],
        "name": headers["shadow"] or headers["task"],
        "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"],
        "retries": headers["retries"],
        "eta": None,
        "expires": None,
    }
