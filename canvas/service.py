"""`ServiceClient`: a step that lives in another code base, called by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

from celery import Celery
from celery._state import get_current_app

from canvas.call import Call
from canvas.outcomes import failure
from canvas.payload import Codec
from canvas.retry import Retry
from canvas.step import refuse_calls
from canvas.waitables import checked_s
from status.errors import ConfigError, ErrorInfo, StepFailed, StepTimeout, qualified_name

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

#: Ends the name that a call's message has, so that only a worker of celeriac takes it for a step of that name. A plain
#: one would run the task without a claim, and nobody would hear of it: it would be sent, and run, again and again.
#: That one logs the name instead, as that of a task that it does not have.
MARK = " (called by celeriac: needs canvas.install and @step here)"

_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


class ServiceCall(Call[R_co]):
    """A call of a service: as that of any step, but for the name that its message has."""

    def spec(self, queue: str) -> dict[str, Any]:
        return {**super().spec(queue), "task": self.definition.sent_as}

    @property
    def kind_of_call(self) -> None:
        # Its worker may have another version of celeriac, or the step be interruptible there: each call is a message.
        return None

    def failure(self, outcome: str, index: int) -> Exception:
        client: ServiceClient[Any, Any] = self.definition
        queue = client.queue_of(self["options"])
        return client.failure(outcome, index, label=self.label, within_s=self.plan.within_s, queue=queue)


class ServiceClient(Generic[T, R_co]):
    """Calls the step `service.handler`, which another app on the same Redis serves. Takes the place of a step.

    The other side is `@step(name="service.handler")` with one parameter. Its own limits hold there (time of an attempt,
    `interruptible`); here it is said how often it is tried and how long its caller waits.

    Args:
        service: The first part of the step's name.
        handler: The rest of it.
        request: What it takes: the type of its one argument.
        response: What it gives.
        queue: Where its messages go; None: as Celery routes that name in this app.
        retry: In place of the step's own; classes of errors can't be named, they live over there.
        timeout_s: From when a call starts until its answer is here, queue and retries included, as `.within(...)`.
        idempotent: False, and it must be, if the step says so: not run again after a crash.

    Raises:
        ConfigError: A name or a number won't do, a type can't be carried as JSON, or `retry` names classes.
    """

    is_workflow = False
    interruptible = False

    def __init__(
        self,
        service: str,
        handler: str,
        request: type[T],
        response: type[R_co],
        *,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        idempotent: bool = True,
    ) -> None:
        self.name = f"{service}.{handler}"
        for what, name in (("service", service), ("handler", handler)):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"ServiceClient({service!r}, {handler!r}): the {what} is no part of a step's name")
        if timeout_s is not None:
            checked_s(f"{self!r}: timeout_s", timeout_s, more_than_0=True)
        self.queue, self.timeout_s, self.idempotent = queue, timeout_s, idempotent
        self.sent_as = self.name + MARK
        self.codec = _codec(self.name, request, response)
        self._retry = None if retry is None else _timing(self, retry)
        self._queues: dict[tuple[Celery, str | None], str] = {}
        known[self.name] = self

    def __repr__(self) -> str:
        return f"ServiceClient({self.name!r})"

    @property
    def app(self) -> Celery:
        """The current one: a client belongs to none."""
        return get_current_app()

    def s(self, request: T, /) -> Call[R_co]:
        """A call: await it in a workflow, alone or as a part of a join or a saga.

        Raises:
            PayloadError: The request does not fit its type, or is a call itself.
        """
        refuse_calls(self.name, (request,), {})
        args, _ = self.codec.encode((request,), {})
        call = cast("Call[R_co]", self.call(tuple(args), {}, {}))
        return call.planned(within_s=self.timeout_s, retry=self._retry)

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Call[Any]:
        """A call with arguments that are JSON values already."""
        call: ServiceCall[Any] = ServiceCall(self.name, args, dict(kwargs), dict(options), app=self.app)
        call.definition = self
        return call

    def queue_of(self, options: Mapping[str, Any]) -> str:
        """The queue that messages go to, under the routes of the current app."""
        own = options.get("queue") or self.queue
        place = self.app, own
        if place not in self._queues:
            route = self.app.amqp.router.route({"queue": own} if own else {}, self.name)
            queue = route.get("queue", self.app.conf.task_default_queue)
            self._queues[place] = str(getattr(queue, "name", queue))
        return self._queues[place]

    def failure(self, outcome: str, index: int, *, label: str, within_s: float | None, queue: str) -> StepFailed:
        """The exception for an outcome that is no value."""
        if outcome[0] != "t":
            return failure(outcome, step=label, index=index, within_s=within_s)
        limit = f"within {within_s:g} s" if within_s else "within the step's own time"
        message = (
            f"no answer {limit} from queue {queue!r}: does a worker serve it that has {self.name!r} as a @step, on the "
            "same broker and Redis? Its log says what it does with it"
        )
        return StepTimeout(ErrorInfo(label, qualified_name(StepTimeout), message, 408), index)


#: The clients of this process, by the names of their steps; of several the last.
known: dict[str, ServiceClient[Any, Any]] = {}


def step_name(task: str) -> str:
    """The name of the step that a message is for."""
    return task.removesuffix(MARK)


def _codec(name: str, request: Any, response: Any) -> Codec:
    def handler(request: Any) -> Any:
        """Stands for the function that lives elsewhere."""

    handler.__annotations__ = {"request": request, "return": response}
    codec = Codec(handler, name)
    _ = codec.argument("request"), codec.result  # said here, and not at the first call, if they can't be carried
    return codec


def _timing(client: ServiceClient[Any, Any], retry: Retry) -> dict[str, Any]:
    plain = Retry()
    if retry.on != plain.on or retry.never != plain.never:
        raise ConfigError(
            f"{client!r}: Retry(on=..., never=...) can't be kept: its errors are raised in another code base. Leave "
            "them out, or let the step over there say so, without a retry here"
        )
    return retry.timing()
