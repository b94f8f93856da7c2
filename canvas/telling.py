"""Tells Flower and other monitors of the steps that ran in place, in the words in which a worker tells of messages.

A worker's parent sends these events for the messages it has received; of what its processes run in place it knows
nothing. So they say it themselves, all in one message when the turn is over.
"""

from __future__ import annotations

import logging
import mmap
from time import time
from typing import TYPE_CHECKING, Any, cast

from celery import states
from kombu.exceptions import OperationalError
from kombu.utils.encoding import safe_repr
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from celery import Celery

    from canvas.publisher import Message

logger = logging.getLogger("celeriac")

# Shared by a worker's processes: monitors switch events on and off at the parent, while the worker runs.
_watched = mmap.mmap(-1, 1)

#: What came of a task, and the event that tells of it.
KINDS = {states.FAILURE: "task-failed", states.RETRY: "task-retried"}


def watch(on: bool) -> None:
    """Whether this worker sends events."""
    _watched[0] = int(on)


def is_watched() -> bool:
    """Whether somebody wants to be told."""
    return _watched[0] == 1


class Teller:
    """Collects what is to be told of one turn.

    Args:
        where: The worker's node name.
    """

    def __init__(self, app: Celery, where: str) -> None:
        self._app = app
        self._where = where
        self._said: list[tuple[str, dict[str, Any]]] = []

    def begins(self, message: Message) -> None:
        """A step is about to run."""
        headers = message.headers
        known = {name: headers[name] for name in ("root_id", "parent_id", "retries", "eta", "expires")}
        shown = {
            "name": headers["shadow"] or headers["task"],
            "args": headers["argsrepr"],
            "kwargs": headers["kwargsrepr"],
        }
        self._say("task-received", message, **shown, **known)
        self._say("task-started", message)

    def ended(self, message: Message, traced: Any) -> None:
        """It has ended as Celery's tracer says."""
        _, info, runtime_s, shown = traced
        if info is None:
            self._say("task-succeeded", message, result=shown, runtime=runtime_s)
        elif info.state in KINDS:
            error = getattr(info.retval, "exc", None) or info.retval
            self._say(KINDS[info.state], message, exception=safe_repr(error), traceback=None)

    def _say(self, kind: str, message: Message, **fields: Any) -> None:
        self._said.append((kind, {"uuid": message.headers["id"], "timestamp": time(), **fields}))

    def let_out(self) -> None:
        """Send it. What can't be sent is not known to monitors; the run's own history has it."""
        if not self._said:
            return
        said, self._said = self._said, []
        events = cast("Any", self._app).events
        try:
            with events.default_dispatcher(hostname=self._where, buffer_while_offline=False) as dispatcher:
                dispatcher.buffer_group, dispatcher.buffer_limit = frozenset({"task"}), len(said) + 1
                for kind, fields in said:
                    dispatcher.send(kind, **fields)
                dispatcher.flush()
        except (OperationalError, RedisError, OSError) as error:
            logger.warning("monitors were not told of %d event(s): %s", len(said), error)
