"""What workers do beside their steps, and what must never go wrong there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from canvas import ConfigError, Run, fan_out_fail, perform, step, undoing, workflow
from canvas.outcomes import Done
from canvas.pulse import Sweeper
from canvas.replay import Raised
from core import current_app, play
from status.keys import Keys
from status.records import Grant, PartRef


class NobodysStore:
    """All shards are swept by another worker."""

    keys = Keys(4)

    def sweep(self, *_: Any) -> None:
        return None

    def due_timers(self, *_: Any) -> Any:
        raise AssertionError("another worker fires the timers of these shards")


def test_a_worker_that_sweeps_no_shard_rests():
    sweeper = Sweeper(SimpleNamespace(store=NobodysStore(), app=None), "w")

    rests = [sweeper.round() for _ in range(3)]
    sweeper.hear_of_timer(0, 0)
    rests += [sweeper.round() for _ in range(3)]

    assert min(rests) > 0.5


def test_an_error_of_a_listener_is_not_the_steps(monkeypatch):
    """It would go up into Celery's tracer, which would record the undo as failed."""

    def broken(*_: Any) -> None:
        raise OSError("the database is locked")

    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(undoing, "listeners", [broken, lambda *said: heard.append(said)])
    monkeypatch.setattr(perform, "settle", lambda *_: None)
    ref = PartRef("r", 0, "1u", "n", 1)
    request = SimpleNamespace(
        id=ref.message_id,
        celeriac_log="r#0",
        celeriac_attempt=perform.Attempt(ref, "t", Grant("granted"), Done(None, "null")),
        get=lambda name, *_: {"celeriac_log": "r#0"}.get(name),
    )

    perform.write_down(request, app=None)

    assert heard == [("r#0", "")]


@step(name="pulse.do")
def do() -> int:
    return 1


@workflow(name="pulse.child")
async def child(run: Run) -> int:
    return 1


@pytest.mark.parametrize("make", [child.s, lambda: fan_out_fail(do.s(), child.s())])
def test_a_child_workflow_is_refused_and_does_not_hang(make):
    """Until there are child workflows: its message would start a turn of a run that is not there."""

    async def body(run: Run):
        await make()

    with current_app("pulse"):
        move, _ = play(body)

    assert isinstance(move, Raised)
    assert isinstance(move.error, ConfigError)
    assert "pulse.child" in str(move.error)
