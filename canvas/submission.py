"""Starts runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis.exceptions import RedisError, ResponseError

from canvas import engine as engines
from canvas.children import digest
from canvas.context import refuse_in_workflow
from canvas.handle import RunHandle
from status import here
from status.advice import advice
from status.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from canvas.waitables import Waitable
    from canvas.workflow import Workflow


def submit_run(
    workflow: Workflow[Any, Any], args: Any, kwargs: Any, *, run_id: str | None, timeout_s: float | None
) -> RunHandle[Any]:
    """Record a run and send its first turn. See `Workflow.submit`."""
    refuse_in_workflow(f"{workflow.name}.submit(...)", f"await {workflow.name}.s(...)")
    limit_s = workflow.timeout_s if timeout_s is None else timeout_s
    if limit_s is not None and limit_s <= 0:
        raise ConfigError(f"{workflow.name}.submit(timeout_s=) must be more than 0 seconds, got {limit_s}")
    text = workflow.write_input(args, kwargs)
    own_id = run_id or f"{workflow.name.rpartition('.')[2]}-{uuid4().hex[:16]}"
    engine = engines.of(workflow.app)
    try:
        created = engine.store.submit(
            own_id,
            workflow=workflow.name,
            input_json=text,
            digest=digest(workflow.name, text),
            token=uuid4().hex,
            timeout_ms=round((limit_s or 0) * 1000),
            retention_ms=round(workflow.retention_s * 1000) if workflow.retention_s else None,
            turn_queue=workflow.queue_of({}),
        )
    except ResponseError as error:
        raise StoreUnavailable(f"run {own_id} was not submitted, nothing of it is recorded: {advice(error)}") from error
    except RedisError as error:
        raise StoreUnavailable(
            f"run {own_id} was not submitted, Redis at {here.where()} does not answer ({error}): "
            "start it, or set REDIS_URL"
        ) from error
    if created:
        engine.send_turn(own_id, workflow.name, first=True)
    return workflow.handle(own_id)


def submit_waitable(waitable: Waitable[Any], *, run_id: str | None, timeout_s: float | None) -> RunHandle[Any]:
    """Start a run of a call. See `Waitable.submit`."""
    from canvas.call import Call  # noqa: PLC0415  # it needs the submission

    if not isinstance(waitable, Call) or not getattr(waitable.definition, "is_workflow", False):
        raise ConfigError(
            f"{waitable!r}.submit(): only a workflow's call makes a run: write a @workflow that awaits it"
        )
    workflow: Workflow[Any, Any] = waitable.definition
    args, kwargs = workflow.codec.decode(waitable["args"], waitable["kwargs"])
    return submit_run(workflow, args, kwargs, run_id=run_id or waitable.plan.run_id, timeout_s=timeout_s)
