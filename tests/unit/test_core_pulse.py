"""What workers do beside their steps, and what must never go wrong there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from canvas import perform, step, undoing
from canvas.outcomes import Done
from canvas.pulse import Sweeper
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
