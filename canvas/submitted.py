"""The workflow that a call, a join or a promise is when it is submitted by itself.

Its input is the recipe, with each part as `open_join` files it: so a worker needs neither the steps nor their types to
run it. What the parts gave stays in the journal, where the handle finds it; the run has no result beside that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from canvas.outcomes import Decision, failure
from canvas.run import Run
from canvas.service import step_name
from canvas.waitables import BatchSource, Join, Part, Recipe
from canvas.workflow import workflow
from status.errors import AllFailed, PayloadError, QuorumFailed, StepFailed, TimedOut
from status.records import NewBatch, NewPart

#: Of the workflow; its turns go where Celery routes this name.
NAME = "celeriac.submitted"

#: What a call has that a plain one has not.
MESSAGE_SAYS = frozenset({"undo", "undoes", "key", "retry"})

#: How an await ended that had nothing to wait for.
NOTHING = Decision("all", "", 0, "", "")

Plan = dict[str, Any]


def plan_of(recipe: Recipe, batch: NewBatch | None = None) -> Plan:
    """A recipe as the input of a run.

    Args:
        batch: Its items are in Redis already.

    Raises:
        PayloadError: An argument of a part doesn't fit.
    """
    parts = [(part, part.prepare()) for part in recipe.parts]
    plan: Plan = {
        "kind": recipe.kind,
        "policy": recipe.policy,
        "need": recipe.need,
        "state": recipe.state,
        "timeout_s": recipe.timeout_s,
        "too_late": _what_it_raises_too_late(recipe),
        "parts": [
            [part.task_name, new.kind, new.queue, new.label, new.spec, new.delay_ms, new.within_ms]
            for part, new in parts
        ],
    }
    if batch is not None and recipe.batch is not None:
        plan["batch"] = {**batch._asdict(), "task": recipe.batch.task_name}
        del plan["batch"]["chunks"]
    return plan


def _what_it_raises_too_late(recipe: Recipe) -> str | None:
    """The message of its TimedOut; None if the end of its time is a value like another."""
    if not recipe.timeout_s:
        return None
    try:
        recipe.settle(Decision("timed_out", "", 0, "", ""))
    except TimedOut as error:
        return str(error)
    return None


def recipe_of(plan: Plan) -> Recipe:
    """The recipe of a plan. What it settles to is None, unless the await fails."""
    parts = tuple(SubmittedPart(*fields) for fields in plan["parts"])
    batch = StagedBatch(plan["batch"]) if "batch" in plan else None

    def settle(decision: Decision) -> None:
        match decision.verdict:
            case "timed_out":
                if plan["too_late"] is not None:
                    raise TimedOut(plan["too_late"])
            case "failed":
                raise _failed(parts, batch, decision, int(decision.index))
            case "lost":
                failed = tuple(_failed(parts, batch, decision, p) for p in sorted(decision.parts))
                raise (QuorumFailed if plan["policy"] == "quorum" else AllFailed)(failed)

    return Recipe(
        plan["kind"],
        plan["policy"],
        parts,
        settle,
        need=plan["need"],
        timeout_s=plan["timeout_s"],
        state=plan["state"],
        batch=batch,
    )


def _failed(parts: tuple[SubmittedPart, ...], batch: StagedBatch | None, decision: Decision, p: int) -> StepFailed:
    label, within_s = (batch.task_name, None) if batch else (parts[p].label, parts[p].within_s)
    return failure(decision.parts[p], step=label, index=p, within_s=within_s)


@workflow(name=NAME)
async def submitted(run: Run, plan: dict[str, Any]) -> None:  # noqa: ARG001  # every workflow is given one
    """Await what was submitted."""
    await Join(recipe_of(plan))


class SubmittedPart(Part[str]):
    """A part as it was prepared by who submitted it."""

    def __init__(self, task_name: str, *new: Any) -> None:
        self._task_name, self._new = task_name, NewPart(*new)

    def __repr__(self) -> str:
        return f"{self._task_name}(...)"

    @property
    def label(self) -> str:
        return self._new.label

    @property
    def task_name(self) -> str:
        return self._task_name

    @property
    def within_s(self) -> float | None:
        """Its time limit."""
        return self._new.within_ms / 1000 or None

    def prepare(self) -> NewPart:
        return self._new

    def spec(self, _queue: str) -> dict[str, Any]:
        """All that a worker needs to publish it."""
        spec: dict[str, Any] = json.loads(self._new.spec)
        return spec

    @cached_property
    def _spec(self) -> dict[str, Any]:
        return self.spec("")

    @property
    def kind_of_call(self) -> Any:
        new = self._new
        if new.kind != "step" or new.delay_ms or new.within_ms or not MESSAGE_SAYS.isdisjoint(self._spec):
            return None
        if step_name(self._spec["task"]) != self._spec["task"]:
            return None  # as `ServiceCall` says
        return new.queue, new.label, self.common_spec

    @property
    def arguments(self) -> tuple[Sequence[Any], dict[str, Any]]:
        return self._spec["args"], self._spec["kwargs"]

    @cached_property
    def common_spec(self) -> dict[str, Any]:
        return {name: value for name, value in self._spec.items() if name not in ("args", "kwargs")}

    def value(self, outcome: str) -> str:
        return outcome


@dataclass(frozen=True)
class StagedBatch(BatchSource):
    """A batch whose items are the run's input.

    Attributes:
        plan: A `NewBatch` without its chunks, and the step's name.
    """

    plan: Plan

    @property
    def size(self) -> int:
        return int(self.plan["size"])

    @property
    def keep(self) -> bool:
        return bool(self.plan["keep"])

    @property
    def task_name(self) -> str:
        return str(self.plan["task"])

    def prepare(self) -> NewBatch:
        fields = {name: value for name, value in self.plan.items() if name != "task"}
        return NewBatch(**fields, chunks=())


def value_of(recipe: Recipe, journal: Any) -> Any:
    """What the await gave, as who submitted it knows its types.

    Raises:
        PayloadError: A value does not fit its type here.
    """
    size = 0 if recipe.batch is not None and not recipe.batch.keep else recipe.size
    decision = (Decision.read(journal, 0, size) if recipe.size else None) or NOTHING
    missing = [
        p for p in range(size) if decision.verdict == "all" and recipe.policy != "quorum" and p not in decision.parts
    ]
    if missing:
        raise PayloadError(f"the journal of a {recipe.kind} has no outcome of part {missing[0]}: was Redis restored?")
    return recipe.settle(decision)
