"""`@workflow`: an `async def` that runs as short turns."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from celery import shared_task

from canvas import engine as engines
from canvas import next_turns
from canvas.handle import RunHandle
from canvas.payload import Codec, compact
from canvas.run import Run
from canvas.step import Definition, refuse_calls, task_of_current_app
from canvas.submission import submit_run
from status.errors import ConfigError, PayloadError

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Workflow(Definition[P, R_co], Generic[P, R_co]):
    """A workflow. Its Celery task is the turn; `.s(...)` is a call of it, `.submit(...)` starts a run."""

    abstract = True
    is_workflow = True
    body: Callable[..., Coroutine[Any, Any, Any]]
    timeout_s: float | None = None
    retention_s: float | None = None
    acks_late = True
    ignore_result = True
    Request = "canvas.request:TurnRequest"

    def __call__(self, *args: Any, **_kwargs: Any) -> Any:
        if self.request.called_directly:
            raise ConfigError(
                f"{self.name}(...) does not run a workflow: {self.name}.submit(...), or await {self.name}.s(...)"
            )
        engine, run_id, known = engines.of(self.app), args[0], self.request.get("celeriac_again")
        began_s = monotonic()
        if known is None:
            engine.turn_here(run_id)
        else:
            engine.turn_again(run_id, self.name, known=known, where=self.request.hostname or "")
        next_turns.lately_s.append(monotonic() - began_s)

    def after_return(self, *_args: Any) -> None:
        next_turns.go_on(self)

    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> RunHandle[R_co]: ...
    @overload
    def submit(self, *args: Any, run_id: str, timeout_s: float | None = None, **kwargs: Any) -> RunHandle[R_co]: ...
    def submit(self, *args: Any, **kwargs: Any) -> RunHandle[R_co]:
        """Start a run; the same run id with the same arguments again gives the run that exists.

        Args:
            run_id: 1 to 200 of `A-Z a-z 0-9 . _ : @ -`; None: a fresh one.
            timeout_s: Of the whole run; None: the workflow's own.

        Raises:
            PayloadError: An argument does not fit.
            ConfigError: The id is malformed, or this is called in a workflow.
            RunConflict: The id is taken by a run with other arguments.
            StoreUnavailable: Redis does not answer; nothing was submitted.
        """
        run_id, timeout_s = kwargs.pop("run_id", None), kwargs.pop("timeout_s", None)
        refuse_calls(self.name, args, kwargs)
        return submit_run(self, args, kwargs, run_id=run_id, timeout_s=timeout_s)

    def handle(self, run_id: str) -> RunHandle[R_co]:
        """A handle on a run that exists, or will."""
        return RunHandle(run_id, self.app, self.codec.result.loads)

    def write_input(self, args: Any, kwargs: Any) -> str:
        """Arguments as the run hash keeps them: the same call, however written, gives the same text.

        Raises:
            PayloadError: One is missing, unknown, or does not fit.
        """
        self.codec.check(args, kwargs)
        encoded, named = self.codec.encode(args, kwargs)
        bound = self.codec.signature.bind(*encoded, **named)
        return compact([list(bound.args), bound.kwargs])

    def read_input(self, text: str) -> tuple[list[Any], dict[str, Any]]:
        """What `write_input` gave, as the annotations say.

        Raises:
            PayloadError: It does not fit (any more).
        """
        try:
            args, kwargs = json.loads(text)
        except ValueError as error:
            raise PayloadError(f"{self.name}: its input is not JSON: {text[:80]!r}") from error
        self.codec.check(args, kwargs)
        return self.codec.decode(args, kwargs)


def workflow(
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    retention_s: float | None = None,
    queue: str | None = None,
) -> Callable[[Callable[Concatenate[Run, P], Coroutine[Any, Any, R]]], Workflow[P, R]]:
    """Make a workflow of an `async def` whose first parameter is its `Run`.

    Args:
        name: Of the Celery task; None: module and function.
        timeout_s: Of a whole run.
        retention_s: How long a finished run can be looked at; None: the setting's, 7 days.
        queue: Where its turns go; None: as Celery routes it.

    Raises:
        ConfigError: The function is not async, or a time is not more than 0.
    """

    def decorate(function: Callable[Concatenate[Run, P], Coroutine[Any, Any, R]]) -> Workflow[P, R]:
        task_name = name or f"{function.__module__}.{function.__name__}"
        _check(function, task_name, timeout_s, retention_s)

        def turn(run_id: str) -> None:
            """Celery wants a function; `Workflow.__call__` is what runs."""

        turn.__module__, turn.__doc__ = function.__module__, function.__doc__
        options: dict[str, Any] = {"queue": queue} if queue else {}
        cast("Any", shared_task)(
            name=task_name,
            base=Workflow,
            codec=Codec(function, task_name, skip=1),
            body=staticmethod(function),
            timeout_s=timeout_s,
            retention_s=retention_s,
            typing=False,
            **options,
        )(turn)
        return cast("Workflow[P, R]", task_of_current_app(task_name))

    return decorate


def _check(function: Any, name: str, timeout_s: float | None, retention_s: float | None) -> None:
    if not inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"@workflow {name} is a plain def: a workflow is `async def {function.__name__}(run: Run, ...)`"
        )
    if not inspect.signature(function).parameters:
        raise ConfigError(f"@workflow {name} takes no `run`: write `async def {function.__name__}(run: Run, ...)`")
    for taken in ("run_id", "timeout_s"):
        if taken in inspect.signature(function).parameters:
            raise ConfigError(f"@workflow {name}: a parameter can't be called {taken}, `.submit({taken}=)` takes it")
    for what, value in (("timeout_s", timeout_s), ("retention_s", retention_s)):
        if value is not None and value <= 0:
            raise ConfigError(f"@workflow {name}: {what} must be more than 0 seconds, got {value}")
