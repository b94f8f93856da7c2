"""Redis, one worker and a clock, in the test's own process. Time goes by when nothing else is left to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from redis import Redis

from canvas.publisher import Message
from canvas.service import step_name
from canvas.testing.bodies import Bodies
from canvas.testing.casting import Casting
from canvas.testing.deaths import Deaths, TestBroke
from canvas.testing.elsewhere import stand_in
from canvas.testing.engine import PlayedEngine, PlayedSweeper
from canvas.testing.fake_part import FakePart
from canvas.testing.fakes import Fakes
from canvas.testing.worker import Attempt, Worker
from status.errors import ConfigError, TimedOut
from status.records import PartRef
from status.settings import Settings
from status.virtual import VirtualStore

if TYPE_CHECKING:
    from celery import Celery

NEVER = float("inf")


@dataclass(order=True)
class _Planned:
    at_ms: int
    order: int
    act: Callable[[], object] = field(compare=False)


class World:
    """One app's workflows, on a server of their own.

    Args:
        patience: So many messages and timers after one call of the test, and what it waits for never comes.

    Attributes:
        attempts: Of steps, in the order in which they began.
    """

    def __init__(
        self,
        app: Celery,
        redis: Redis,
        settings: Settings,
        *,
        fakes: Fakes,
        strict: bool,
        now_ms: int,
        patience: int,
    ) -> None:
        self.app, self.patience = app, patience
        self.deaths = Deaths()
        boundary = self.deaths.boundary
        self.store = VirtualStore(redis, settings, now_ms=now_ms, boundary=boundary)
        self.casting = Casting(self.store, fakes, strict=strict)
        self.bodies = Bodies(self)
        self.attempts: list[Attempt] = []
        self._inbox: deque[Callable[[], object]] = deque()
        self._planned: list[_Planned] = []
        self._order = count()
        self._moves = 0
        self._elsewhere: dict[str, Any] = {}
        self._worker = Worker(self)
        self.engine = PlayedEngine(app, self)
        self._sweeper = PlayedSweeper(self.engine)

    # --- messages -------------------------------------------------------------------

    def put(self, message: Message) -> None:
        """A message comes in."""
        self._inbox.append(partial(self._worker.take, message))

    def put_fake(self, ref: PartRef, spec: dict[str, Any]) -> bool:
        """A part is to be sent. Returns whether it is no step and has a fake, which then takes its place."""
        if "child" not in spec and "canvas" not in spec:
            return False
        label = spec["label"]
        act = self.casting.find(ref.run_id, (label, spec.get("task", label)))
        if act is not None:
            self._inbox.append(FakePart(self, ref, spec, act).begin)
        elif "canvas" in spec:
            raise TestBroke(f"{label!r} is stock Celery, which is not played: give it a fake, fakes={{{label!r}: ...}}")
        return act is not None

    def task_of(self, message: Message) -> Any:
        """The step or workflow that a message is for."""
        name = step_name(message.headers["task"])
        task = self.app.tasks.get(name) or self._elsewhere.get(name)
        if task is None:
            task = self._elsewhere[name] = stand_in(self.app, name)
        if task is None:
            raise ConfigError(
                f"no step or workflow {name!r} is known to {self.app.main or 'the app'}: import its module in the test"
            )
        return task

    # --- time -----------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Seconds since the world began."""
        return (self.store.now_ms - self.store.start_ms) / 1000

    def plan(self, in_s: float, act: Callable[[], object]) -> None:
        """Let something happen later."""
        heappush(self._planned, _Planned(self.store.now_ms + round(in_s * 1000), next(self._order), act))

    def start_over(self) -> None:
        """The test asks for something: patience begins anew."""
        self._moves = 0

    def settle(self) -> None:
        """Do all that can be done now."""
        while self._inbox:
            self._moved()
            self.deaths.as_process(self._inbox.popleft())

    def advance(self, by_s: float) -> None:
        """Let so much time go by."""
        end_ms = self.store.now_ms + round(by_s * 1000)
        self.settle()
        while self.hop(end_ms):
            pass
        self.store.set_clock(end_ms)
        self.bodies.vouch()
        self._repair(parked=True)

    def hop(self, end_ms: float = NEVER) -> bool:
        """Go to the next moment at which anything happens, and let it. Returns whether there is one until then."""
        self.settle()
        at_ms = min(self._moments(), default=NEVER)
        if at_ms > end_ms or at_ms == NEVER:
            return False
        self._moved()
        self.store.set_clock(max(self.store.now_ms, int(at_ms)))
        self.bodies.vouch()
        while self._planned and self._planned[0].at_ms <= self.store.now_ms:
            heappop(self._planned).act()
            self.settle()
        self._fire_timers()
        self._repair(parked=False)
        self.bodies.end_hanging()
        self.settle()
        return True

    def _moved(self) -> None:
        self._moves += 1
        if self._moves > self.patience:
            raise TimedOut(
                f"{self.patience} messages and timers, {self.now_s:.0f} s of virtual time since it began, and no end: "
                "a loop, or a step that is retried for ever? Workflows(..., patience=) allows more"
            )

    def _moments(self) -> Iterable[float]:
        if self._planned:
            yield self._planned[0].at_ms
        yield from (at_ms for at_ms, _ in self.store.timers()[:1])
        yield next((at_ms for at_ms, *place in self.store.due() if not self._waits(*place)), NEVER)

    def _waits(self, run_id: str, n: str, p: str) -> bool:
        """Whether what is due need not be looked at: its step runs here, or its run waits for other code."""
        return self.bodies.holds(run_id, n, p) if n else self.store.parked(run_id)

    def _fire_timers(self) -> None:
        while timers := [timer for at_ms, timer in self.store.timers() if at_ms <= self.store.now_ms]:
            for timer in timers:
                self._moved()
                self.deaths.as_process(partial(self._sweeper.fire, timer))
            self.settle()

    def _repair(self, *, parked: bool) -> None:
        for at_ms, run_id, n, p in self.store.due():
            if at_ms <= self.store.now_ms and (not self._waits(run_id, n, p) or (parked and not n)):
                self.deaths.as_process(partial(self._sweeper.repair, run_id, n, p))
        self.settle()
