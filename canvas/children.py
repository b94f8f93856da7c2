"""Child workflows: a call of a workflow, awaited in another, is a run of its own.

The parent claims the part, submits the child and confirms that it is there; the child's end is told to the parent as
the outcome of that part. Each of these may be done again by the sweep, by anybody, until it is confirmed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from canvas.outcomes import describe, encode_error
from canvas.payload import compact
from canvas.waitables import Part
from status.errors import Cancelled, ConfigError, RunConflict
from status.records import Claim, NewBatch, NewPart, PartRef
from status.states import FINAL, State

if TYPE_CHECKING:
    from canvas.call import Call
    from canvas.engine import Engine

logger = logging.getLogger("celeriac")

Kind = Literal["done", "failed"]

#: A run id may have 200 characters; a longer parent's is cut, and told apart by a digest.
LONGEST_PARENT = 160


def prepare(call: Call[Any]) -> NewPart:
    """The part that a call of a workflow is; its run id comes when it is opened.

    Raises:
        PayloadError: Its arguments don't fit.
    """
    workflow, plan = call.definition, call.plan
    args, kwargs = workflow.codec.decode(call["args"], call["kwargs"])
    text = workflow.write_input(args, kwargs)
    spec = {
        "child": plan.run_id or "",
        "task": workflow.name,
        "input": text,
        "digest": digest(workflow.name, text),
        "timeout_ms": round((workflow.timeout_s or 0) * 1000),
        "retention_ms": round((workflow.retention_s or 0) * 1000),
        "turn_queue": workflow.queue_of({}),
        "label": call.label,
        "undo": plan.undo,
    }
    return NewPart(
        kind="child",
        queue="",
        label=call.label,
        spec=compact({name: value for name, value in spec.items() if value is not None}),
        delay_ms=round(plan.delay_s * 1000),
        within_ms=round((plan.within_s or 0) * 1000),
    )


class Start(Part[str]):
    """Starts a run that nobody waits for; its value is the run's id. Made by `run.start(call)`."""

    kind = "start"

    def __init__(self, call: Call[Any]) -> None:
        if not getattr(call.definition, "is_workflow", False):
            raise ConfigError(f"run.start({call!r}): only a workflow's call makes a run; await {call!r} itself")
        self._call = call

    @property
    def label(self) -> str:
        return self._call.label

    @property
    def task_name(self) -> str:
        return self._call.task_name

    def prepare(self) -> NewPart:
        part = prepare(self._call)
        return part._replace(spec=compact({**json.loads(part.spec), "detached": True}))

    def value(self, outcome: str) -> str:
        return str(json.loads(outcome))


def digest(workflow: str, input_json: str) -> str:
    """Tells a run's workflow and arguments from those of another."""
    return sha256(compact([workflow, input_json]).encode()).hexdigest()


def with_run_ids(parts: tuple[NewPart, ...], run_id: str, n: int, generation: int) -> tuple[NewPart, ...]:
    """The parts of await `n`, their children with the ids that their runs will have: the same at each replay."""
    return tuple(
        _with_run_id(part, child_id(run_id, f"{n}.{p}", generation)) if part.kind == "child" else part
        for p, part in enumerate(parts)
    )


def batch_with_run_ids(batch: NewBatch, run_id: str, n: int, generation: int) -> NewBatch:
    """The batch of await `n`; if its parts are children, with the ids that their runs will have."""
    return batch._replace(queue=f">{child_id(run_id, f'{n}.%', generation)}") if batch.queue == ">" else batch


def of_item(spec: dict[str, Any], ref: PartRef, item: Any) -> dict[str, Any]:
    """The spec of a child that is part of a batch: its template with what is the item's own."""
    text = compact([[item], {}])
    generation = int(ref.nonce.partition("g")[2] or 0)
    own_id = child_id(ref.run_id, f"{ref.n}.{ref.p}", generation)
    return {**spec, "child": own_id, "input": text, "digest": digest(spec["task"], text)}


def _with_run_id(part: NewPart, own_id: str) -> NewPart:
    spec = json.loads(part.spec)
    spec["child"] = spec["child"] or own_id
    # Where a step has its queue; `>` is in the name of none.
    return part._replace(queue=f">{spec['child']}", spec=compact(spec))


def child_id(run_id: str, place: str, generation: int) -> str:
    """The id of the child at `await.part`: `order-7@2.1`; once its parent was retried, `order-7@2.1-r1`."""
    if len(run_id) > LONGEST_PARENT:
        run_id = f"{run_id[: LONGEST_PARENT - 17]}-{sha256(run_id.encode()).hexdigest()[:16]}"
    return f"{run_id}@{place}-r{generation}" if generation else f"{run_id}@{place}"


def submit(engine: Engine, ref: PartRef, spec: dict[str, Any], trace: str = "") -> None:
    """Start the child that a part is. Safe to do again."""
    run_id = spec["child"]
    # Claimed first: from here on, whoever stops the part owes the child that it stops, be it there or not.
    grant = engine.store.begin(ref, token=ref.message_id, where=f">{run_id}", name=spec["label"])
    if not grant.granted:
        return
    code, state = engine.store.submit_child(
        run_id,
        workflow=spec["task"],
        input_json=spec["input"],
        digest=spec["digest"],
        parent=ref,
        detached=bool(spec.get("detached")),
        timeout_ms=spec["timeout_ms"],
        retention_ms=spec["retention_ms"] or None,
        turn_queue=spec.get("turn_queue", ""),
        trace=trace,
    )
    if code == "conflict":
        error: BaseException = RunConflict(
            f"child run id {run_id!r} is taken by a run ({state}) of another workflow or with other arguments"
        )
        end_part(engine, ref, "failed", encode_error(describe(error)), grant.now_ms)
        return
    if code == "stopped":
        _never_ran(engine, ref)
        return
    if code == "created":
        engine.send_turn(run_id, spec["task"], queue=spec.get("turn_queue", ""))
    if spec.get("detached"):
        end_part(engine, ref, "done", "v" + compact(run_id), grant.now_ms)
        return
    engine.store.child_submitted(ref)
    if state in FINAL:
        tell(engine, run_id)


def stop(engine: Engine, claims: Iterable[Claim]) -> None:
    """Let children know that nobody waits for them any more; they undo what they did, if they say how."""
    from canvas import stock  # noqa: PLC0415  # it ends its parts as children do

    for claim in claims:
        ref = PartRef.parse(claim.token) if claim.child else None
        if ref is not None and claim.child.startswith("*"):
            stock.stop(engine, ref, int(claim.child[1:]))
        elif ref is not None:
            _stop(engine, ref, claim.child)


def _stop(engine: Engine, ref: PartRef, run_id: str) -> None:
    ending = engine.store.stop_child(run_id, f"{ref.step_id} was stopped", parent=ref)
    if engine.go_on(run_id, ending):
        engine.send_turn_of(run_id)
    engine.store.child_stopped(ref)
    if ending.code in {"stopped", "foreign"}:
        engine.store.told(run_id, ref)
        _never_ran(engine, ref)


def _never_ran(engine: Engine, ref: PartRef) -> None:
    error = encode_error(describe(Cancelled("it was stopped before it began")))
    end_part(engine, ref, "failed", error)


def tell(engine: Engine, run_id: str) -> None:
    """Tell the parents of a child how it ended, as the outcome of their part."""
    end = engine.store.child_end(run_id)
    if end.state not in FINAL:
        return
    for ref in end.tells:
        if end.state == State.COMPLETED:
            end_part(engine, ref, "done", "v" + end.result, end.submitted_ms)
        else:
            end_part(engine, ref, "failed", "e" + end.error, end.submitted_ms)
        engine.store.told(run_id, ref)


def end_part(engine: Engine, ref: PartRef, kind: Kind, outcome: str, began_ms: int = 0) -> None:
    """Record the outcome of a part that no step of ours is, and let its run go on. Safe to do again."""
    line = "" if kind == "done" else str(json.loads(outcome[1:]).get("message", ""))[:200]
    ending = engine.store.finish(
        ref,
        token=ref.message_id,
        kind=kind,
        outcome=outcome,
        began_ms=began_ms,
        line=line,
        name=engine.store.label_of(ref),
    )
    if engine.go_on(ref.run_id, ending):
        engine.send_turn_of(ref.run_id)
