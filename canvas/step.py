"""`@step`: a Celery task whose calls can be awaited."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from celery import shared_task
from celery._state import get_current_app
from celery.app.task import Task
from celery.local import Proxy

from canvas import hooks, perform, settling
from canvas.call import Call
from canvas.context import is_in_step, refuse_in_workflow, workflow_here
from canvas.payload import Codec
from canvas.retry import DEFAULT, Retry
from canvas.waitables import Waitable
from status.errors import ConfigError, NotAwaitable, PayloadError, RetryAfter, TerminalError

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

#: Celery options that would work against the engine, and what to write for them.
REFUSED_OPTIONS = {
    "bind": "ask canvas.current_step()",
    "autoretry_for": "write @step(retry=Retry(on=(...)))",
    "retry_backoff": "write @step(retry=Retry(first_s=..., factor=...))",
    "max_retries": "write @step(retry=Retry(max_attempts=...))",
    "default_retry_delay": "write @step(retry=Retry(first_s=...))",
    **hooks.TAKEN,
}

if TYPE_CHECKING:

    class _Task(Task[P, R_co], Generic[P, R_co]): ...
else:

    class _Task(Task, Generic[P, R_co]):
        """Celery's own Task is not generic when it runs."""


class Unary(Protocol[T_contra, R_co]):
    """A step or a workflow that can be called with one argument."""

    def s(self, argument: T_contra, /) -> Call[R_co]: ...


def refuse_calls(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise PayloadError if an argument is a call that was not awaited."""
    for where, value in [*enumerate(args), *kwargs.items()]:
        if isinstance(value, Waitable):
            at = f"argument {where + 1}" if isinstance(where, int) else where
            raise PayloadError(f"{name}: got a call of {value!r} for {at}: await it first")


class Definition(_Task[P, R_co]):
    """What steps and workflows have in common: a name, a codec and calls."""

    abstract = True
    codec: Codec
    idempotent = True
    queue: str
    Request = "canvas.request:StepRequest"
    _queues: dict[Any, str]

    def __init__(self) -> None:
        super().__init__()
        # Routes don't change while a process lives, and asking them costs more than a call.
        self._queues = {}

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Join an app: Celery calls this for each class that it makes of a declaration.

        Celery warns of a queue in a declaration, for its version 6 will not look at it. `queue_of` always will, so
        there is nothing to warn of.
        """
        queue = cls.__dict__.get("queue")
        if queue is not None:
            del cls.queue
        bound = super().bind(app)
        if queue is not None:
            cls.queue = queue
        return bound

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """A call with these arguments: await it in a workflow, or give it to any Celery canvas.

        Raises:
            PayloadError: An argument does not fit its annotation, or is a call itself.
        """
        # Looked at first, since a workflow makes its calls anew at each replay.
        if not kwargs and self.codec.stands(args):
            return Call.of(self, args, {})
        refuse_calls(self.name, args, kwargs)
        encoded, named = self.codec.encode(args, kwargs)
        return Call.of(self, tuple(encoded), named)

    def queue_of(self, options: dict[str, Any]) -> str:
        """The queue that messages of it go to, under Celery's routes."""
        # As Celery's apply_async does: the call's own queue, else the declaration's, else the routes.
        own = options.get("queue") or getattr(self, "queue", None)
        if own not in self._queues:
            self._queues[own] = self._route(own)
        return self._queues[own]

    def _route(self, own: Any) -> str:
        route = self.app.amqp.router.route({"queue": own} if own else {}, self.name, task_type=cast("Any", self))
        queue = route.get("queue", self.app.conf.task_default_queue)
        return str(getattr(queue, "name", queue))


class Step(Definition[P, R_co]):
    """A Celery task that a run calls. `my_step(...)` runs it here; `my_step.s(...)` is a call of it."""

    abstract = True
    policy: Retry = DEFAULT
    timeout_s: float | None = None
    interruptible = False
    local = False
    # A lost message is found and sent again by the sweep, but a worker that stops gives its own back at once.
    acks_late = True
    # A lost process gives its claim back, and the step is published again: once, not twice.
    reject_on_worker_lost = False
    ignore_result = True
    # Business as usual: logged in a line, without a traceback.
    throws = (TerminalError, RetryAfter)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        # The request may be another's: of this very step, called by itself; or of one that owes a turn and has ended.
        if self.request.called_directly or (is_in_step() and not self.request.is_eager):
            name = workflow_here()
            if name is not None:
                raise NotAwaitable(
                    f"{self.name}(...) in workflow {name} would run at each replay: await {self.name}.s(...)"
                )
            return self.run(*args, **kwargs)
        return perform.attempt(self, args, kwargs)  # type: ignore[no-any-return]

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        refuse_in_workflow(f"{self.name}.delay(...)", f"await {self.name}.s(...)")
        return super().delay(*args, **kwargs)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        refuse_in_workflow(f"{self.name}.apply_async(...)", f"await {self.name}.s(...)")
        return super().apply_async(*args, **kwargs)

    def retry(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refused: a retry of Celery's would be a second message that nobody knows of."""
        raise ConfigError(
            f"{self.name}: self.retry() is not for steps: write @step(retry=Retry(...)), or raise RetryAfter"
        )

    def on_retry(self, *_args: Any) -> None:
        # Celery stores nothing of a retry and does not call `after_return` for it.
        settling.write_down(self.request, self.app)
        settling.after_return(self)

    def after_return(self, *_args: Any) -> None:
        settling.after_return(self)


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    queue: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    interruptible: bool = False,
    idempotent: bool = True,
    local: bool = False,
    **celery_options: Any,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    interruptible: bool = False,
    idempotent: bool = True,
    local: bool = False,
    **celery_options: Any,
) -> Any:
    """Make a step of a function. Registers as Celery's `shared_task` does.

    Args:
        name: Of the Celery task; None: module and function.
        queue: Where its messages go; None: as Celery routes it.
        retry: When a failed attempt is made again; None: `Retry()`.
        timeout_s: Of one attempt, from its start.
        interruptible: When nobody waits for it any more, `Cancelled` is raised in it, and its process is killed if it
            still runs 0.2 s later. On the prefork pool.
        idempotent: False: never run again after a crash; it then fails with "outcome unknown".
        local: Run inside the turn, without a message of its own.
        celery_options: Go to Celery.

    Raises:
        ConfigError: The function is async, or an option can't be.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        _check(function, timeout_s, celery_options)
        options = dict(celery_options)
        if queue is not None:
            options["queue"] = queue
        if isinstance(options.get("before_start"), FunctionType):
            options["before_start"] = hooks.guarded(options["before_start"])
        task_name = name or f"{function.__module__}.{function.__name__}"
        cast("Any", shared_task)(
            name=task_name,
            base=Step,
            codec=Codec(function, task_name),
            policy=retry or DEFAULT,
            timeout_s=timeout_s,
            interruptible=interruptible,
            idempotent=idempotent,
            local=local,
            # Celery would look at annotations and arguments once more; the codec has done it.
            typing=False,
            **options,
        )(function)
        return task_of_current_app(task_name)

    return decorate if fn is None else decorate(fn)


def task_of_current_app(name: str) -> Any:
    """Stands for the task of that name in whatever app is current, as `shared_task`'s own proxy does.

    It remembers what it found: a workflow asks for its steps at each replay.
    """
    found: dict[Any, Any] = {}

    def look_up() -> Any:
        app = get_current_app()
        if app not in found:
            found.clear()
            found[app] = app.tasks[name]
        return found[app]

    return _StandIn(look_up)


class _StandIn(Proxy):  # type: ignore[type-arg]  # it is generic for type checkers alone
    """Celery's own, whose look-up has no arguments: it is asked for each call that a workflow makes."""

    def _get_current_object(self) -> Any:
        return _look_up_of(self)()

    def __getattr__(self, name: str) -> Any:
        return getattr(_look_up_of(self)(), name)

    def s(self, *args: Any, **kwargs: Any) -> Any:
        return _look_up_of(self)().s(*args, **kwargs)


_look_up_of: Callable[[_StandIn], Callable[[], Any]] = vars(Proxy)["_Proxy__local"].__get__


def _check(function: Callable[..., Any], timeout_s: float | None, options: dict[str, Any]) -> None:
    where = f"@step {function.__module__}.{function.__qualname__}"
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"{where} is async: a step is a plain def; a workflow is async def with @workflow")
    if timeout_s is not None and timeout_s <= 0:
        raise ConfigError(f"{where}: timeout_s must be more than 0 seconds, got {timeout_s}")
    for option in options:
        if option in REFUSED_OPTIONS:
            raise ConfigError(f"{where}: {option}= is not for steps: {REFUSED_OPTIONS[option]}")
