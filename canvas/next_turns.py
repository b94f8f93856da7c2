"""A pool process that has taken a turn goes on with the next run's, without a way through its worker's parent.

Of a turn whose steps all run in place, a tenth of the cost is to hand its message from the parent to a process, and to
hear of its end. So where more turns wait, the process takes the next one from the broker itself. It takes only what
nobody would notice: turns that were never sent before, of workflows without hooks or limits, while nobody listens (see
`canvas.untraced`). And only while nothing else waits for its worker, neither in hand nor on its queues.

Nothing rests on it. The message of a turn may get lost at any moment: the run owes its turn, and is sent another.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from celery import signals
from celery._state import _task_stack  # type: ignore[attr-defined]  # the stubs leave it out
from celery.app import trace
from celery.app.task import Context
from kombu.exceptions import OperationalError
from pydantic_core import from_json
from redis.exceptions import RedisError

from canvas import engine as engines
from canvas import granted, in_hand, transport, untraced
from canvas.granted import slot_here
from canvas.in_place import place_of
from status.advice import advice

if TYPE_CHECKING:
    from celery import Celery

    from canvas.workflow import Workflow

#: Celery's own, in which workers say what they have run.
logger = logging.getLogger(trace.__name__)

#: After so long the process makes way: its worker hands out what it has in hand, a message at a time.
GO_ON_S = 0.025

#: Messages that are taken together.
AT_MOST = 4

#: How long the last turns took in this process. Of fewer than this many nothing is known.
FEW = 4
lately_s: deque[float] = deque(maxlen=8)


def go_on(workflow: Workflow[Any, Any]) -> None:
    """A turn of a workflow, which came by a message, is over: take the next ones, if turns are short."""
    request: Any = workflow.request
    queue = (request.delivery_info or {}).get("routing_key", "")
    others = _others(workflow.app, queue)
    are_long = sum(lately_s) > len(lately_s) * GO_ON_S / 2
    if others is None or are_long or not _is_unnoticed(workflow):
        return
    try:
        Bout(workflow.app, queue, others).go()
    except (RedisError, OperationalError, OSError) as error:
        logger.warning("turns on %s were not taken, those that are lost will be sent again: %s", queue, advice(error))


def _is_unnoticed(workflow: Workflow[Any, Any]) -> bool:
    listened = signals.task_received.receivers or signals.task_internal_error.receivers
    return not listened and untraced.is_plain_turn(workflow) and untraced.nobody_listens(workflow.app)


def _others(app: Celery, queue: str) -> list[str] | None:
    """The other queues of this worker; None: its processes take nothing themselves."""
    place = place_of(app)
    if place is None or not place.takes_turns or queue not in place.queues or slot_here() is None:
        return None
    return [name for name in place.queues if name != queue]


class Taken(NamedTuple):
    """The message of a turn."""

    text: Any  #: as the broker had it
    headers: dict[str, Any]


class Bout:
    """What a process takes in one go."""

    def __init__(self, app: Celery, queue: str, others: list[str]) -> None:
        self._app, self._queue, self._others = app, queue, others
        self._end_s = monotonic() + GO_ON_S
        self._name, self._taken = "", list[Taken]()  # what is taken and has not begun, and where it was

    def go(self) -> None:
        """Take turns, until there are none, or it is time for others.

        Raises:
            RedisError: Redis does not answer; what was taken and has not begun may be lost, and will be sent again.
        """
        try:
            while in_hand.only_turns() and monotonic() < self._end_s:
                found = self._next()
                if found is None:
                    break
                start_s = monotonic()
                _take_turn(*found, self._queue)
                lately_s.append(monotonic() - start_s)
        finally:
            self._put_back()

    def _next(self) -> tuple[Workflow[Any, Any], dict[str, Any]] | None:
        """A workflow, and the headers of a turn of it; None: there is none, or it is for the worker."""
        if not self._taken:
            self._take()
        if not self._taken:
            return None
        headers = self._taken[0].headers
        workflow: Any = self._app.tasks.get(headers["task"])
        if not getattr(workflow, "is_workflow", False) or not untraced.is_plain_turn(workflow):
            return None
        # If this process dies, its parent knows by this whose turns it had.
        granted.took({one.headers["root_id"]: one.headers["task"] for one in self._taken})
        del self._taken[0]
        return workflow, headers

    def _take(self) -> None:
        with self._channel() as channel:
            if transport.puts(channel):
                self._name, texts = channel.take_turns(self._queue, self._others, self._at_most())
                self._taken = [Taken(text, from_json(text)["headers"]) for text in texts]

    def _at_most(self) -> int:
        """No more than there is time for: what is taken with a long one waits for it."""
        if len(lately_s) < FEW:
            return 1
        # One of them may have had to wait for the processor.
        longest_s = max(sorted(lately_s)[-2], 0.001)
        return min(AT_MOST, max(1, int((self._end_s - monotonic()) / longest_s)))

    def _put_back(self) -> None:
        left, self._taken = self._taken, []
        granted.took({})
        if left:
            with self._channel() as channel:
                channel.put_back(self._name, [one.text for one in left])

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        """Of the broker. Not for longer than a round trip: a turn needs one itself, and there may be no other."""
        with cast("Any", self._app).producer_pool.acquire(block=True) as pooled:
            yield pooled.channel


def _where(app: Celery) -> str:
    place = place_of(app)
    return place.where if place else ""


def _take_turn(workflow: Workflow[Any, Any], headers: dict[str, Any], queue: str) -> None:
    """What Celery's tracer would do with the message."""
    start_s, task, run_id = monotonic(), cast("Any", workflow), headers["root_id"]
    info = {"exchange": "", "routing_key": queue, "priority": 0, "redelivered": False}
    task.request_stack.push(
        Context(headers, args=[run_id], kwargs={}, hostname=_where(task.app), delivery_info=info, called_directly=False)
    )
    _task_stack.push(task)
    said: dict[str, Any] = {"id": headers["id"], "name": headers["shadow"], "args": headers["argsrepr"], "kwargs": "{}"}
    try:
        engines.of(workflow.app).turn_here(run_id)
    except Exception as error:
        policy = trace.log_policy_unexpected
        said |= {"exc": repr(error), "description": policy.description}
        logger.log(policy.severity, policy.format, said, exc_info=error, extra={"data": said})
    else:
        if logger.isEnabledFor(logging.INFO):
            logger.info(trace.LOG_SUCCESS, said | {"return_value": "None", "runtime": monotonic() - start_s})
    finally:
        _task_stack.pop()
        task.request_stack.pop()
