"""What workers do beside their steps, and what must never go wrong there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from canvas import step, undoing
from canvas.outcomes import Again, Done
from canvas.pulse import Sweeper
from status.errors import LogUnavailable
from status.keys import Keys


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


class Log:
    """A log of undos that is down for so many writes."""

    def __init__(self, *, down: int = 0, undone: bool = False) -> None:
        self.down, self.undone, self.heard = down, undone, []

    def begins(self, _key: str) -> bool:
        return self.undone

    def ended(self, key: str, why: str) -> None:
        self.down -= 1
        if self.down >= 0:
            raise LogUnavailable("locked")
        self.heard.append((key, why))


def logged(monkeypatch, log: Log) -> tuple[Any, int]:
    """What comes of a late undo with this log, and how often it ran."""
    ran = []
    monkeypatch.setattr(undoing, "logs", [log])
    monkeypatch.setattr(undoing, "PATIENCE_S", 0.2)
    outcome = undoing.logged("r#0", lambda: ran.append(1) or Done(7, "7"))
    return outcome, len(ran)


def test_a_late_undo_is_noted_as_soon_as_the_log_is_back(monkeypatch):
    log = Log(down=1)

    assert logged(monkeypatch, log) == (Done(7, "7"), 1)
    assert log.heard == [("r#0", "")]


def test_a_late_undo_that_cannot_be_noted_is_tried_again_and_has_not_failed(monkeypatch):
    outcome, _ = logged(monkeypatch, Log(down=1000))

    assert isinstance(outcome, Again)
    assert outcome.info.message == "locked"


def test_a_late_undo_whose_outcome_is_noted_is_not_made_again(monkeypatch):
    assert logged(monkeypatch, Log(undone=True)) == (Done(None, "null"), 0)


@step(name="pulse.do")
def do() -> int:
    return 1
