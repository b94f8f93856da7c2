"""A run of many parts in this process: its messages are kept until the test plays them."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

import json
from typing import Any

from canvas.pulse import Sweeper
from runs import ERROR
from status.records import PartRef
from turns import Turns

#: Of the run that most tests play: its parts, and how many of them at a time.
ITEMS, WINDOW = 100, 5


class Batches(Turns):
    """A run whose messages are kept, with their arguments, until the test plays them."""

    def __init__(self, app: Any, client: Any) -> None:
        super().__init__(app, client)
        self.queue: list[tuple[PartRef, list[Any]]] = []
        self.most = 0
        self.bodies: list[int] = []
        self.dies_after_taking = False
        self.widens_by = 0

    def steps(self, messages: Any, _workflow: str) -> None:
        if self.dies_after_taking:
            return
        self.queue += [(ref, spec["args"]) for ref, spec in messages]

    def turn(self, *_: Any, **__: Any) -> None:
        self.take()

    def started(self, flow: Any, items: int = ITEMS, window: int | None = WINDOW) -> Batches:  # type: ignore[override]
        args = [items] if window is None else [items, window]
        self.store.submit(self.id, workflow=flow.name, input_json=json.dumps([args, {}]), digest="d", token="t")
        self.take()
        return self

    def play_one(self, *, bad: bool = False, token: str = "") -> str:
        """Take the oldest message, run its step and write down what came of it."""
        ref, args = self.queue.pop(0)
        own = token or f"t{len(self.bodies)}"
        grant = self.store.begin(ref, token=own, where="w", widens_by=self.widens_by)
        if not grant.granted:
            return "refused"
        self.engine.publish(self.id, grant.publish)
        self.bodies.append(args[0])
        kind, outcome = ("failed", ERROR) if bad else ("done", f"v{2 * args[0]}")
        ending = self.store.finish(ref, token=own, kind=kind, outcome=outcome, began_ms=1)
        if self.engine.go_on(self.id, ending):
            self.take()
        return ending.code

    def play(self, bad: tuple[int, ...] = ()) -> Any:
        """Until nothing is left to do. Gives what the workflow returned."""
        while self.queue:
            self.most = max(self.most, len(self.queue))
            self.play_one(bad=self.queue[0][1][0] in bad)
        assert self.state == "completed", self.field("error")
        return json.loads(self.field("result") or "")

    @property
    def window(self) -> set[str]:
        """The parts that have begun and not ended."""
        return set(self.redis.smembers(self.store.keys.join(self.id, 0) + ":live"))

    def sweep(self) -> None:
        """Take the clock on until the sweep has looked at everything, as if no message were there."""
        sweeper = Sweeper(self.engine, "w")
        sweeper.backlog.is_lost = lambda *_: True  # type: ignore[method-assign]
        self.tick(5)
        sweeper.sweep(self.shard)
