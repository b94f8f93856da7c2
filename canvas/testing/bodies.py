"""Bodies of steps that take virtual time: who runs what, and holds which claim meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from canvas.lives import lives_used_up
from canvas.outcomes import encode_unknown
from canvas.testing.fakes import FOR_EVER
from status.records import PartRef

if TYPE_CHECKING:
    from canvas.testing.world import World


class Body(Protocol):
    """Something that takes virtual time and holds a claim meanwhile."""

    @property
    def ref(self) -> PartRef:
        """Whose claim."""

    @property
    def token(self) -> str:
        """Of the claim."""

    @property
    def takes_s(self) -> float:
        """How long; `FOR_EVER`: until it is stopped."""

    def end(self) -> None:
        """Its time is over."""

    def killed(self) -> None:
        """Its process was killed, as nobody waits for it."""


class Bodies:
    """Those that run now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: dict[str, Body] = {}

    def begin(self, body: Body) -> None:
        """A body takes time."""
        self._running[body.token] = body
        if body.takes_s != FOR_EVER:
            self._world.plan(body.takes_s, lambda: self._end(body))

    def holds(self, run_id: str, n: str, p: str) -> bool:
        """Whether this part runs here."""
        return any((body.ref.run_id, str(body.ref.n), body.ref.p) == (run_id, n, p) for body in self._running.values())

    def vouch(self) -> None:
        """As the heartbeat does each second."""
        for body in self._running.values():
            self._world.store.vouch(body.ref.run_id, [(body.ref.n, body.ref.p, body.token)])

    def end_hanging(self) -> None:
        """Those that hang look whether anybody waits for them."""
        for body in list(self._running.values()):
            if body.takes_s == FOR_EVER and self._world.store.stopped(body.ref):
                self._end(body)

    def kill(self, tokens: set[str]) -> None:
        """Kill the processes that run these; their parent gives the claims back at once."""
        world = self._world
        for token in tokens & self._running.keys():
            body = self._running.pop(token)
            body.killed()
            outcome = encode_unknown(lives_used_up())
            ending = world.store.release(body.ref, token=token, call_token=uuid4().hex, outcome=outcome)
            world.engine.follow(body.ref.run_id, ending)

    def _end(self, body: Body) -> None:
        if self._running.pop(body.token, None) is not None:
            self._world.deaths.as_process(body.end)
