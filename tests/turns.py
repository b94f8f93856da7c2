"""Whole turns in this process, on a real Redis and without a worker."""

from __future__ import annotations

from typing import Any

from canvas.engine import Engine
from canvas.turn import take_turn
from runs import Runs
from status.models import error_from_json


class Turns(Runs):
    """A run whose turns are taken here; what they send is in `sent`."""

    def __init__(self, app: Any, client: Any) -> None:
        super().__init__(client)
        self.engine = Engine(app, self.store)
        self.engine.publisher = self  # type: ignore[assignment]
        self.sent: list[tuple[str, int]] = []

    def steps(self, messages: Any, _workflow: str) -> None:
        self.sent += [(ref.step_id, ref.attempt) for ref, _ in messages]

    def turn(self, run_id: str, *_: Any, **__: Any) -> None:
        self.sent.append((run_id, 0))

    def begun(self, flow: Any) -> Turns:
        """Submit a run of `flow` and take its first turn."""
        self.store.submit(self.id, workflow=flow.name, input_json="[[],{}]", digest="d", token="t")  # noqa: S106
        self.take()
        return self

    def take(self, record: Any = None) -> None:
        take_turn(self.engine, self.id, record)

    def end(self, n: int, *, good: bool = True) -> None:
        """Let the one part of await `n` run and end."""
        nonce = self.redis.hget(self.keys.join(self.id, n), "nonce")
        assert self.begin(0, f"t{n}", n=n, nonce=nonce) == "granted"
        assert self.finish("done" if good else "failed", 0, f"t{n}", n=n, nonce=nonce).code == "decided"

    @property
    def parked(self) -> Any:
        assert self.state == "suspended"
        return error_from_json(self.field("error") or "")
