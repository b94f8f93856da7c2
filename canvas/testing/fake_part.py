"""What is no step, and whose fake takes its place: a child workflow, of which no run begins, or a stock canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from canvas.outcomes import describe, encode_error
from canvas.payload import compact
from canvas.testing.deaths import Died, TestBroke
from canvas.testing.fakes import FOR_EVER, Act
from canvas.testing.worker import HOSTNAME, Attempt, Stopped
from status.errors import ConfigError
from status.records import PartRef

if TYPE_CHECKING:
    from canvas.testing.world import World


class FakePart:
    """One part of a join that would be something else."""

    def __init__(self, world: World, ref: PartRef, spec: dict[str, Any], act: Act) -> None:
        self.ref = ref
        self.token = ref.message_id
        self._world, self._spec, self._act = world, spec, act
        self._workflow = world.engine.workflow(spec["task"]) if "child" in spec else None
        self._seen: Attempt | None = None
        self._began_ms = 0

    @property
    def takes_s(self) -> float:
        return self._act.takes_s

    def begin(self) -> None:
        """It would have been started now."""
        ref, label, world = self.ref, self._spec["label"], self._world
        if self._act.body is None:
            raise TestBroke(f"the fake of {label}: only a step's may be real, or die before its effect")
        grant = world.store.begin(ref, token=self.token, where=HOSTNAME, name=label)
        if not grant.granted:
            return
        self._began_ms = grant.now_ms
        args, kwargs = self._workflow.read_input(self._spec["input"]) if self._workflow else ([], {})
        self._seen = Attempt(
            ref.run_id, ref.step_id, self._spec.get("task", label), label, tuple(args), dict(kwargs), 1,
            ref.idempotency_key, None, world.now_s,
        )  # fmt: skip
        world.attempts.append(self._seen)
        if self._act.takes_s:
            world.bodies.begin(self)
        else:
            self.end()

    def end(self) -> None:
        """Its time is over."""
        seen = self._seen
        if seen is None:
            raise ConfigError(f"the fake of {self._spec['label']} has not begun")
        try:
            kind: Literal["done", "failed"] = "done"
            outcome = "v" + self._dumps(self._call(seen))
        except AssertionError as error:
            raise TestBroke(str(error)) from error
        except Exception as error:  # noqa: BLE001  # it is what the part raises
            seen.outcome, seen.error = "failed", error
            kind, outcome = "failed", encode_error(describe(error, step=None))
        if self._act.dies == "after":
            seen.outcome = "died"
            raise Died
        world = self._world
        ending = world.store.finish(
            self.ref, token=self.token, kind=kind, outcome=outcome, began_ms=self._began_ms, name=seen.label
        )
        world.engine.follow(self.ref.run_id, ending)

    def _dumps(self, value: Any) -> str:
        return self._workflow.codec.result.dumps(value) if self._workflow else compact(value)

    def _call(self, seen: Attempt) -> Any:
        if self.takes_s == FOR_EVER:
            seen.outcome = "stopped"
            raise Stopped(f"{seen.label} was stopped")
        body = self._act.body
        seen.value = body(*seen.args, **seen.kwargs) if body else None
        seen.outcome = "done"
        return seen.value

    def killed(self) -> None:
        """Nothing: only a step is interruptible."""
