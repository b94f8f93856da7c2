"""The core in this process: an app without a broker, and a workflow replayed from outcomes that a test gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, _state

from canvas.outcomes import describe, encode_error
from canvas.replay import Asks, Move, replay
from canvas.run import Run
from status.errors import Cancelled

#: When each run of these tests was submitted, ms; each recorded outcome is a second later than the one before.
SUBMITTED_MS = 1_790_000_000_000


@contextmanager
def current_app(name: str = "unit", **settings: Any) -> Iterator[Celery]:
    """A Celery app that steps and workflows of this thread belong to."""
    before = _state._tls.current_app
    app = Celery(name, broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(**settings)
    app.set_current()
    app.finalize()
    try:
        yield app
    finally:
        _state._tls.current_app = before


def record(journal: dict[str, str], asks: Asks, outcome: Any) -> None:
    """Write down how an await of one part ended: with a value, an exception or `Cancelled`."""
    n, verdict, index = asks.n, "all", ""
    if isinstance(outcome, Cancelled):
        verdict, index = "cancelled", f"{outcome.code}|{outcome.reason}"
    elif isinstance(outcome, Exception):
        verdict, index = "failed", "0"
        journal[f"{n}.0"] = encode_error(describe(outcome, step=asks.recipe.parts[0].label))
    elif asks.parts:
        journal[f"{n}.0"] = "v" + json.dumps(outcome)
    at_ms = SUBMITTED_MS + 1000 * (n + 1)
    journal[str(n)] = json.dumps(
        {"v": verdict, "i": index, "at": at_ms, "x": f"nonce{n}", "by": "", "fp": asks.recipe.fingerprint}
    )


def play(
    body: Callable[..., Any], *outcomes: Any, run_id: str = "r1", before: Callable[[], None] = lambda: None
) -> tuple[Move, Run]:
    """Replay a workflow from nothing, then from each longer part of `outcomes`. Gives its last move and run.

    Args:
        outcomes: How its awaits end, first to last.
        before: Called before each replay.
    """
    journal: dict[str, str] = {}
    left = list(outcomes)
    while True:
        before()
        run = Run(run_id, "unit.workflow", SUBMITTED_MS)
        move = replay(body, run, [], {}, journal)
        if not left or not isinstance(move, Asks):
            assert not left, f"it ended ({move}) before it asked for {left}"
            return move, run
        record(journal, move, left.pop(0))
