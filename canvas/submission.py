"""Starts runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import current_app
from redis.exceptions import RedisError, ResponseError

from canvas import engine as engines
from canvas import tracing
from canvas.children import digest
from canvas.context import refuse_in_workflow
from canvas.handle import RunHandle
from canvas.payload import compact
from canvas.staging import uploaded
from status import here
from status.advice import advice
from status.errors import ConfigError, RunNotFound, StoreUnavailable
from status.records import check_run_id
from status.tokens import new_token

if TYPE_CHECKING:
    from canvas.waitables import Recipe, Waitable
    from canvas.workflow import Workflow


def submit_run(
    workflow: Workflow[Any, Any], args: Any, kwargs: Any, *, run_id: str | None, timeout_s: float | None
) -> RunHandle[Any]:
    """Record a run and send its first turn. See `Workflow.submit`."""
    refuse_in_workflow(f"{workflow.name}.submit(...)", f"await {workflow.name}.s(...)")
    text = workflow.write_input(args, kwargs)
    own_id = run_id or fresh_id(workflow.name)
    _create(workflow, own_id, text, digest(workflow.name, text), timeout_s=timeout_s)
    return workflow.handle(own_id)


def fresh_id(name: str) -> str:
    """A run id that nothing has, with a word that tells what it is."""
    word = re.sub(r"[^A-Za-z0-9._-]", "-", name.rpartition(".")[2])[:100]
    return f"{word or 'run'}-{uuid4().hex[:16]}"


def _create(
    workflow: Workflow[Any, Any], run_id: str, text: str, digest: str, *, timeout_s: float | None, **upload: Any
) -> None:
    """Record a run, unless it is there, and send its first turn."""
    limit_s = workflow.timeout_s if timeout_s is None else timeout_s
    if limit_s is not None and limit_s <= 0:
        raise ConfigError(f"{workflow.name}.submit(timeout_s=) must be more than 0 seconds, got {limit_s}")
    engine = engines.of(workflow.app)
    with tracing.submitting(run_id, workflow.name) as trace, _answering(run_id):
        created = engine.store.submit(
            run_id,
            workflow=workflow.name,
            input_json=text,
            digest=digest,
            token=new_token(),
            timeout_ms=round((limit_s or 0) * 1000),
            retention_ms=round(workflow.retention_s * 1000) if workflow.retention_s else None,
            turn_queue=workflow.queue_of({}),
            trace=trace,
            **upload,
        )
        if created:
            engine.send_turn(run_id, workflow.name, first=True)


@contextmanager
def _answering(run_id: str) -> Iterator[None]:
    """Say what it means that Redis does not answer."""
    try:
        yield
    except ResponseError as error:
        raise StoreUnavailable(f"run {run_id} was not submitted, nothing of it is recorded: {advice(error)}") from error
    except RedisError as error:
        raise StoreUnavailable(
            f"run {run_id} was not submitted, Redis at {here.where()} does not answer ({error}): "
            "start it, or set REDIS_URL"
        ) from error


def submit_waitable(waitable: Waitable[Any], *, run_id: str | None, timeout_s: float | None) -> RunHandle[Any]:
    """Start a run of its own. See `Waitable.submit`."""
    from canvas.call import Call  # noqa: PLC0415  # it needs the submission

    refuse_in_workflow(f"{waitable!r}.submit(...)", f"await {waitable!r} itself")
    own_id = None
    if isinstance(waitable, Call):
        own_id = waitable.plan.run_id
        if waitable.plan.undone_by is not None:
            raise ConfigError(
                f"{waitable!r}.undone_by(...).submit(): only a saga runs the undo: write a @workflow with saga.run(...)"
            )
        if getattr(waitable.definition, "is_workflow", False) and _as_it_stands(waitable):
            workflow: Workflow[Any, Any] = waitable.definition
            args, kwargs = workflow.codec.decode(waitable["args"], waitable["kwargs"])
            return submit_run(workflow, args, kwargs, run_id=run_id or own_id, timeout_s=timeout_s)
    return _submit_recipe(waitable, waitable.recipe(), run_id, timeout_s)


def _as_it_stands(call: Any) -> bool:
    """Whether a workflow's call says nothing that only an await of it can do."""
    return bool(replace(call.plan, run_id=None, label=None) == type(call).plan)


def _submit_recipe(
    waitable: Waitable[Any], recipe: Recipe, run_id: str | None, timeout_s: float | None
) -> RunHandle[Any]:
    from canvas.batch import Batch  # noqa: PLC0415  # as above
    from canvas.joins import FanOutResult  # noqa: PLC0415
    from canvas.submitted import NAME, plan_of, value_of  # noqa: PLC0415

    if recipe.undo or recipe.policy == "settled":
        raise ConfigError(f"{waitable!r}.submit(): what belongs to a saga runs in its workflow alone")
    app: Any = next((part.app for part in recipe.parts if hasattr(part, "app")), current_app)
    workflow, store = app.tasks[NAME], engines.of(app).store
    own_id = check_run_id(run_id or fresh_id(_name_of(recipe)))

    def decode(_result: str) -> Any:
        record = store.load(own_id)
        if record is None:
            raise RunNotFound(own_id)
        value = value_of(recipe, record.journal)
        if isinstance(value, FanOutResult):
            value.given_by(f"run {own_id}")
        return value

    if isinstance(recipe.batch, Batch):
        with _answering(own_id), uploaded(store, own_id, recipe.batch) as upload:
            text = compact([[plan_of(recipe, upload.batch)], {}])
            own_digest = digest(NAME, text + upload.digest)
            its_input = {"staged": upload.token, "pieces": upload.pieces}
            _create(workflow, own_id, text, own_digest, timeout_s=timeout_s, **its_input)
    else:
        text = compact([[plan_of(recipe)], {}])
        _create(workflow, own_id, text, digest(NAME, text), timeout_s=timeout_s)
    return RunHandle(own_id, app, decode)


def _name_of(recipe: Recipe) -> str:
    return recipe.parts[0].task_name if recipe.kind == "await" and recipe.parts else recipe.kind
