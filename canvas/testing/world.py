"""Redis, one worker and a clock, in the test's own process. Time goes by when nothing else is left to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from redis import Redis

from canvas import children
from canvas.engine import Engine
from canvas.lives import lives_used_up
from canvas.outcomes import encode_unknown
from canvas.publisher import Message, Publisher
from canvas.pulse import Sweeper
from canvas.service import step_name
from canvas.testing.elsewhere import stand_in
from canvas.testing.fake_child import FakeChild
from canvas.testing.fakes import FOR_EVER, Act, Fakes
from canvas.testing.worker import Attempt, Died, Job, TestBroke, Worker
from status.errors import ConfigError, TimedOut
from status.records import Claim, PartRef
from status.settings import Settings
from status.virtual import VirtualStore

if TYPE_CHECKING:
    from celery import Celery


@dataclass
class Crash:
    """A death that is yet to come.

    Attributes:
        when: `before` or `after`, and what is written: a transition (`open_join`, `finish`, …) or `publish`.
        names: Of the step, by name or label; empty: any.
    """

    when: str
    names: frozenset[str]
    left: int


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


class _Publisher(Publisher):
    """Real messages, into the world's own queue."""

    def __init__(self, app: Celery, world: World) -> None:
        super().__init__(app)
        self._world = world

    def _send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._world.boundary("before", "publish")
            self._world.put(message)
            self._world.boundary("after", "publish")


class _Engine(Engine):
    """Stops steps in the world's own worker."""

    def __init__(self, app: Celery, world: World) -> None:
        super().__init__(app, world.store)
        self.publisher = _Publisher(app, world)
        self._world = world

    def _without_children(self, rows: list[tuple[PartRef, dict[str, Any]]]) -> list[tuple[PartRef, dict[str, Any]]]:
        rest = [(ref, spec) for ref, spec in rows if "child" not in spec or not self._world.put_child(ref, spec)]
        return super()._without_children(rest)

    def stop(self, claims: Sequence[Claim]) -> None:
        self._world.stop_steps({claim.token for claim in claims if claim.interruptible})
        children.stop(self, claims)


class _NothingQueued:
    """Stands for the backlog: the sweep looks only when each message was taken."""

    def is_lost(self, *_: Any) -> bool:
        return True

    def look_again(self) -> None:
        pass


@dataclass(order=True)
class _Planned:
    at_ms: int
    order: int
    act: Callable[[], object] = field(compare=False)


class World:
    """One app's workflows, on a server of their own.

    Args:
        patience: So many messages and timers after one call of the test, and what it waits for never comes.
    """

    def __init__(
        self, app: Celery, redis: Redis, settings: Settings, *, fakes: Fakes, now_ms: int, patience: int
    ) -> None:
        self.app, self.fakes, self.patience = app, fakes, patience
        self.store = VirtualStore(redis, settings, now_ms=now_ms, boundary=self._at_script)
        self._inbox: deque[Callable[[], object]] = deque()
        self.attempts: list[Attempt] = []
        self.crashes: list[Crash] = []
        self.fakes_of: dict[str, Fakes] = {}
        self._running: dict[str, Body] = {}
        self._elsewhere: dict[str, Any] = {}
        self._planned: list[_Planned] = []
        self._order = count()
        self._in_hand: Message | None = None
        self._is_process = False
        self._moves = 0
        self._worker = Worker(self)
        self.engine = _Engine(app, self)
        self._sweeper = Sweeper(self.engine, "test")
        self._sweeper.backlog = _NothingQueued()  # type: ignore[assignment]
        self._sweeper.__dict__["_asks_queues"] = True

    # --- time -----------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Seconds since the world began."""
        return (self.store.now_ms - self.store.start_ms) / 1000

    def plan(self, in_s: float, act: Callable[[], object]) -> None:
        """Let something happen later."""
        heappush(self._planned, _Planned(self.store.now_ms + round(in_s * 1000), next(self._order), act))

    def settle(self) -> None:
        """Do all that can be done now."""
        while self._inbox:
            self._moved()
            self.as_process(self._inbox.popleft())

    def put(self, message: Message) -> None:
        """A message comes in."""
        self._inbox.append(partial(self._worker.take, message))

    def put_child(self, ref: PartRef, spec: dict[str, Any]) -> bool:
        """A child workflow is to be started. Returns whether it has a fake, which then takes its place."""
        act = self._fake_act(ref.run_id, (spec["label"], spec["task"]))
        if act is not None:
            self._inbox.append(partial(FakeChild(self, ref, spec, act).begin))
        return act is not None

    def advance(self, by_s: float) -> None:
        """Let so much time go by."""
        end_ms = self.store.now_ms + round(by_s * 1000)
        self.settle()
        while self.hop(end_ms):
            pass
        self.store.set_clock(end_ms)
        self._look_at_parked()
        self.settle()

    def hop(self, end_ms: float = float("inf")) -> bool:
        """Go to the next moment at which anything happens, and let it. Returns whether there is one until then."""
        self.settle()
        at_ms = min((at for at in self._moments() if at is not None), default=float("inf"))
        if at_ms > end_ms or at_ms == float("inf"):
            return False
        self._moved()
        self.store.set_clock(max(self.store.now_ms, int(at_ms)))
        self._vouch()
        while self._planned and self._planned[0].at_ms <= self.store.now_ms:
            heappop(self._planned).act()
            self.settle()
        self._fire_timers()
        self._repair()
        self._end_hanging()
        return True

    def start_over(self) -> None:
        """The test asks for something: patience begins anew."""
        self._moves = 0

    def _moved(self) -> None:
        self._moves += 1
        if self._moves > self.patience:
            raise TimedOut(
                f"{self.patience} messages and timers, {self.now_s:.0f} s of virtual time since it began, and no end: "
                "a loop, or a step that is retried for ever? Workflows(..., patience=) allows more"
            )

    def _moments(self) -> Iterable[float | None]:
        yield self._planned[0].at_ms if self._planned else None
        yield next((at_ms for at_ms, _ in self.store.timers()), None)
        yield next((at_ms for at_ms, *place in self.store.due() if not self._waits(*place)), None)

    def _waits(self, run_id: str, n: str, p: str) -> bool:
        """Whether what is due need not be looked at: its step runs here, or its run is parked."""
        if n == "":
            return self.store.parked(run_id)
        return any((body.ref.run_id, str(body.ref.n), body.ref.p) == (run_id, n, p) for body in self._running.values())

    def _vouch(self) -> None:
        for body in self._running.values():
            self.store.vouch(body.ref.run_id, [(body.ref.n, body.ref.p, body.token)])

    def _fire_timers(self) -> None:
        while timers := [timer for at_ms, timer in self.store.timers() if at_ms <= self.store.now_ms]:
            for timer in timers:
                self._moved()
                self._sweeper.fire(timer)
            self.settle()

    def _repair(self) -> None:
        for at_ms, run_id, n, p in self.store.due():
            if at_ms <= self.store.now_ms and not self._waits(run_id, n, p):
                self._sweeper.repair(run_id, n, p)
        self.settle()

    def _look_at_parked(self) -> None:
        for at_ms, run_id, n, p in self.store.due():
            if at_ms <= self.store.now_ms and n == "":
                self._sweeper.repair(run_id, n, p)

    def _end_hanging(self) -> None:
        for body in list(self._running.values()):
            if body.takes_s == FOR_EVER and self.store.stopped(body.ref):
                self._end(body)
        self.settle()

    # --- processes --------------------------------------------------------------------

    def as_process(self, act: Callable[[], object]) -> None:
        """Do something as a process that may die in the middle.

        Raises what the test is to see: of a fake that found a mistake.
        """
        before, self._is_process = self._is_process, True
        try:
            with suppress(Died):
                act()
        except TestBroke as broke:
            cause = broke.__cause__
            if isinstance(cause, AssertionError):
                raise cause from None
            raise ConfigError(str(broke)) from cause
        finally:
            self._is_process = before

    def boundary(self, side: str, what: str) -> None:
        """Between two writes: the process may die here."""
        if not self._is_process:
            return
        here = f"{side} {what}"
        for crash in self.crashes:
            if crash.left and crash.when == here and (not crash.names or crash.names & self._names_here()):
                crash.left -= 1
                raise Died

    def _names_here(self) -> set[str]:
        return set(_names(self._in_hand)) if self._in_hand else set()

    def _at_script(self, side: str, name: str, _keys: Sequence[str], _args: Sequence[Any]) -> None:
        self.boundary(side, name)

    # --- as the worker sees it ----------------------------------------------------------

    def task_of(self, message: Message) -> Any:
        """The step or workflow that a message is for."""
        name = step_name(message.headers["task"])
        task = self.app.tasks.get(name) or self._elsewhere.get(name) or stand_in(self.app, name)
        if getattr(task, "is_elsewhere", False):
            self._elsewhere[name] = task
        if task is None:
            raise ConfigError(
                f"no step or workflow {name!r} is known to {self.app.main or 'the app'}: import its module in the test"
            )
        return task

    @contextmanager
    def at_work(self, message: Message) -> Iterator[None]:
        """This is the message that the present process has in hand."""
        before, self._in_hand = self._in_hand, message
        try:
            yield
        finally:
            self._in_hand = before

    def act_of(self, job: Job) -> Act:
        """What the attempt that begins does."""
        names = _names(job.message)
        act = self._fake_act(job.ref.run_id, names)
        if getattr(job.task, "is_elsewhere", False) and (act is None or (act.body is None and act.dies != "before")):
            raise TestBroke(f"step {names[-1]!r} lives in another code base: give it a fake in fakes=")
        if act is None and self.fakes.strict:
            raise TestBroke(
                f"step {names[-1]!r} has no fake, and strict=True: give it one in fakes=, or Fake.real() to run its "
                "own function"
            )
        return act or Act()

    def _fake_act(self, run_id: str, names: Sequence[str]) -> Act | None:
        acts = (fakes.next_act(names) for fakes in self._fakes_for(run_id))
        return next((act for act in acts if act is not None), None)

    def _fakes_for(self, run_id: str) -> Iterable[Fakes]:
        """Those of the run, of its parent, of its parent's parent, and of the world."""
        while run_id:
            if run_id in self.fakes_of:
                yield self.fakes_of[run_id]
            run_id = self.store.parent_of(run_id)
        yield self.fakes

    def begins(self, job: Job, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempt:
        """Write down that an attempt begins."""
        ref, headers = job.ref, job.message.headers
        label, name = _names(job.message)
        seen = Attempt(
            ref.run_id, ref.step_id, name, label, tuple(args), dict(kwargs), ref.attempt,
            headers.get("celeriac_key") or ref.idempotency_key, headers.get("celeriac_undoes"), self.now_s,
        )  # fmt: skip
        self.attempts.append(seen)
        return seen

    def runs(self, body: Body) -> None:
        """A body takes time."""
        self._running[body.token] = body
        if body.takes_s != FOR_EVER:
            self.plan(body.takes_s, lambda: self._end(body))

    def _end(self, body: Body) -> None:
        if self._running.pop(body.token, None) is not None:
            self.as_process(body.end)

    def stop_steps(self, tokens: set[str]) -> None:
        """Kill the processes that run these; their parent gives the claims back at once."""
        for token in tokens & self._running.keys():
            body = self._running.pop(token)
            body.killed()
            outcome = encode_unknown(lives_used_up())
            ending = self.store.release(body.ref, token=token, call_token=uuid4().hex, outcome=outcome)
            self.engine.follow(body.ref.run_id, ending)


def _names(message: Message) -> tuple[str, str]:
    """What a fake may be given for: the label of the call, and the step's name."""
    name = step_name(message.headers["task"])
    return message.headers.get("shadow") or name, name
