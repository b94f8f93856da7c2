"""`saga.chain(...)`: the plain-canvas form, a Celery chain whose errors start the chain of undos.

It needs no workflow and gives no more than Celery does: an undo chain stops at its first failing member,
and is lost with the process that was about to start it. In a workflow use `Saga`.
"""

from __future__ import annotations

from typing import Any, cast

import celery
from celery import current_app, shared_task
from celery.canvas import Signature
from celery.result import AsyncResult

from canvas import Call, ConfigError, Unary
from saga.undo import Undo


def chain(*steps: tuple[Call[Any], Call[Any] | Unary[None, Any]]) -> Signature[Any]:
    """A Celery chain of actions; when one fails, the undos of those before it (and its own) run, newest first.

    Args:
        steps: Pairs of an action and its undo: a call, run as it stands, or a step, which gets what the
            action returned (None if that is unknown).

    Returns:
        A signature: `.apply_async()` starts it. The actions do not get each other's values.

    Raises:
        ConfigError: There is no pair, or one does not fit.
    """
    if not steps:
        raise ConfigError("saga.chain() needs at least one (action, undo)")
    done: list[dict[str, Any]] = []
    actions: list[Signature[Any]] = []
    for action, undo in steps:
        bound = Undo.of(undo)
        bound.check_fits(action)
        # Their results are what the undos get; they are kept as long as Celery keeps results.
        link: Signature[Any] = Signature(
            action["task"], action["args"], action["kwargs"], dict(action["options"]), immutable=True, app=current_app
        )
        cast("Any", link).set(ignore_result=False, task_id=celery.uuid())
        done.append(
            {
                "action": link["options"]["task_id"],
                "task": bound.definition.name,
                "args": list(bound.args),
                "kwargs": dict(bound.kwargs),
                "takes_value": bound.takes_value,
            }
        )
        link.on_error(start_undos.s(list(reversed(done))))
        actions.append(link)
    return celery.chain(*actions)


@shared_task(name="saga.start_undos", ignore_result=True, acks_late=True)
def start_undos(failed_id: str, undos: list[dict[str, Any]]) -> None:
    """The errback: start the chain of undos, newest first. `failed_id` is Celery's id of the action that failed."""
    del failed_id
    app = start_undos.app
    links = []
    for undo in undos:
        args = list(undo["args"])
        if undo["takes_value"]:
            result: AsyncResult[Any] = AsyncResult(undo["action"], app=app)
            # Read, not waited for: the action has ended or will never run.
            args.insert(0, result.result if result.state == "SUCCESS" else None)
        links.append(app.signature(undo["task"], args=args, kwargs=undo["kwargs"], immutable=True))
    celery.chain(*links).apply_async()
