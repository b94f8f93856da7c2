"""A world: Redis, a broker, workers and a client, on a clock of its own, each step of it said by a seed."""

from __future__ import annotations

import random as everybodys
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any
from uuid import uuid4

import redis

from canvas import granted, perform
from canvas.engine import Engine
from canvas.outcomes import describe, encode_error
from simulation import ending, faults, plans
from simulation.broker import Broker, SimPublisher
from simulation.flows import flow, stage
from simulation.ground import Control, Ground
from simulation.hosts import Child, Died, Host, Process
from simulation.in_place import Habits
from simulation.redis_side import LEASE_MS, RAISED_MS, Patches, SimStore, Snapshot
from simulation.sagas import SagaWatch
from simulation.watch import Seen, Violation, Watch
from status.errors import StoreUnavailable
from status.records import PartRef

START_MS = 1_790_000_000_000
RUN = "r"
HOSTS = 2
SENDERS = ("ann", "bob")
#: A run that has not ended so long after the last fault never will.
PATIENCE_MS = 600_000
#: What happens all the time is not worth a line.
QUIET = ("before sweep", "after sweep", "before vouch", "after vouch")
#: How deep others may go on while somebody is between two writes.
DEPTH = 2


class SimEngine(Engine):
    """The engine, as the processes of a world share it."""

    habits: Habits

    @property
    def goes_ahead(self) -> bool:
        return self.habits.some


class World:
    """One run and all that happens to it.

    Args:
        seed: Says everything that is not given.
        patches: Of the scripts, for mutations.
    """

    run_id = RUN
    patience_ms = PATIENCE_MS

    def __init__(
        self,
        on: Ground,
        seed: int,
        *,
        plan: plans.Plan | None = None,
        profile: faults.Profile | None = None,
        patches: Patches = (),
        settings: dict[str, int] | None = None,
    ) -> None:
        self.seed, self.random = seed, Random(seed)
        everybodys.seed(seed)  # the jitter of retries
        self.ground, self.app = on, on.app
        habits = Habits(seed)
        drawn = plan or plans.draw(self.random)
        self.plan = plans.draw_brief(Random(f"brief plan {seed}")) if habits.brief and plan is None else drawn
        self.profile = profile or faults.draw(self.random)
        stage.plan, stage.begins = self.plan, lambda: not self.current.job.ends
        self.faults = faults.Faults(self.profile, self.random)
        self.ms, self.current, self.trace = 0, None, []
        self.server = "server"  # the run id of Redis
        granted.__dict__["_here"].clear()
        perform.took_s.clear()
        self._events: list[Any] = []
        self._order, self._depth = count(), 0
        self._lease_ms = self._raised_ms = self.cut_until_ms = 0
        on.redis.world = self
        on.raw.flushdb()
        self.saga = SagaWatch(self, on.database)
        self.watch = Watch(self)
        self.broker = Broker(self)
        self.store = SimStore(on.redis, self, patches, **{"max_lives": 1000, **(settings or {})})
        self.engine = SimEngine(self.app, self.store)
        self.engine.publisher = SimPublisher(self.app, self)
        self.engine.in_place = lambda: habits.in_place(self)
        self.engine.habits = habits
        self.engine.widens_by = habits.widens_by
        self.app.__dict__["_celeriac"] = self.engine
        self.app.__dict__["control"] = Control(self)
        self.hosts: list[Host] = []
        self._host_number = count(1)
        self.hosts = [self._host() for _ in range(HOSTS)]
        self._plan_troubles()

    # --- time -----------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return START_MS + self.ms

    @property
    def now_s(self) -> float:
        return self.now_ms / 1000

    def note(self, what: str) -> None:
        """A line of the trace."""
        self.trace.append((self.ms, self.current.name if self.current else "", what))

    def after(self, ms: float, process: Process | None, act: Callable[..., None], *args: Any) -> None:
        """Let a process do something later; None is nobody who could die."""
        heappush(self._events, (self.ms + max(0, round(ms)), next(self._order), process, act, args))

    def run_until(self, end_ms: int, over: Callable[[], bool] = lambda: False) -> None:
        """Let everybody go on."""
        while self._events and self._events[0][0] <= end_ms and not over():
            at, _, process, act, args = heappop(self._events)
            self.ms = self.faults.now_ms = max(self.ms, at)
            self._do(process, act, args)
        if not over():
            self.ms = self.faults.now_ms = max(self.ms, end_ms)

    def _do(self, process: Process | None, act: Callable[..., None], args: Any) -> None:
        if process is None:
            before, self.current = self.current, None
            act(*args)
            self.current = before
            return
        if process.dead:
            return
        if process.host is not None and process.host.stopped:
            self.after(process.host.stopped_until_ms - self.now_ms, process, act, *args)
            return
        if process.busy:
            process.waiting.append((act, args))
            return
        before, self.current, process.busy = self.current, process, True
        try:
            act(*args)
        except Died:
            assert process.dead, f"{process.name} died and lives"
        finally:
            self.current, process.busy = before, False
            for later, its in process.waiting:
                self.after(0, process, later, *its)
            process.waiting.clear()

    def work(self, ms: int) -> None:
        """The current process is at work for so long, unless others stand still meanwhile."""
        if ms and not self._depth:
            self._go_on_without(ms)

    def sleep(self, s: float) -> None:
        """The current process waits."""
        self._go_on_without(round(s * 1000))

    def _go_on_without(self, ms: int) -> None:
        process = self.current
        self._depth += 1
        try:
            self.run_until(self.ms + ms)
        finally:
            self._depth -= 1
        if process.dead:
            raise Died

    # --- faults ---------------------------------------------------------------------

    def boundary(self, where: str) -> None:
        """Between two writes: the process may die here, or stand still while others go on."""
        process = self.current
        if process is None:
            return
        if process.dead:
            raise Died
        if not where.startswith(QUIET):
            self.note(where)
        if self.faults.kills() and (isinstance(process, Child) or not self.profile.children_only):
            self.kill(process)
            raise Died
        if self._depth < DEPTH:
            # Who is between two writes already would stand still too, and nobody would know of it.
            if pause_ms := self.faults.pauses_ms() if process.host and not self._depth else 0:
                process.host.stop(pause_ms)
            if ms := pause_ms or self.faults.preempts_ms():
                self._go_on_without(ms)

    def kill(self, process: Process) -> None:
        if process.host is None:
            process.gone = True
            self.note("the client died")
            self.after(500, Process("client"), self.submit)
        elif isinstance(process, Child) and not self.faults.takes_host():
            process.host.lose_child(process)
        else:
            process.host.die()

    def check_line(self) -> None:
        """Raise what redis-py raises if the current process does not reach Redis."""
        if self.current is None:
            return
        host = self.current.host
        if self.cut_until_ms > self.ms or (host is not None and host.cut_until_ms > self.ms):
            raise redis.ConnectionError("cut off")

    def _plan_troubles(self) -> None:
        profile = self.profile
        for at_ms, length_ms in profile.cuts_ms:
            self.after(at_ms, None, self._cut, length_ms)
        for at_ms, length_ms in profile.stops_ms:
            self.after(at_ms, None, lambda ms: self._any_host().stop(ms), length_ms)
        for at_ms in profile.flushes_ms:
            self.after(at_ms, None, self.broker.flush)
        for at_ms, back_ms in profile.rollbacks_ms:
            self.after(at_ms, None, self._remember, back_ms)
        for at_ms in self.plan.cancels_ms:
            self.after(at_ms, Process("canceller"), self._cancel)
        for n, join in enumerate(self.plan.joins):
            for p in range(len(join.good)):
                if join.step(p) == "promise":
                    self.after(self.random.randint(0, 6000), Process("outside"), self._resolve, n, p)
        for name in SENDERS if self.plan.receives else ():
            self.after(self.random.randint(0, 3000), Process(name), self._send, name, 1)

    def _any_host(self) -> Host:
        return self.random.choice(self.hosts)

    def _cut(self, length_ms: int) -> None:
        if self.random.random() < 0.4:
            self.cut_until_ms = self.ms + length_ms
            for host in self.hosts:
                host.shaken(length_ms)
        else:
            self._any_host().cut(length_ms)

    def _remember(self, back_ms: int) -> None:
        if self.watch.seen.submitted and not self.watch.seen.ended:
            self.after(back_ms, None, self._restart_redis, Snapshot(self.ground.raw), self.watch.save())

    def _restart_redis(self, snapshot: Snapshot, saved: Seen) -> None:
        if self.watch.seen.ended:
            return
        self.note("Redis was restarted without its last moments")
        self.server += "+"
        snapshot.restore(self.ground.raw)
        self.watch.restore(saved)

    # --- who there is ---------------------------------------------------------------

    def _host(self) -> Host:
        return Host(self, f"host{next(self._host_number)}")

    def replace(self, gone: Host) -> None:
        """Another host takes a dead one's place."""
        self.hosts[self.hosts.index(gone)] = self._host()
        self.broker.pull()

    def submit(self) -> None:
        """The client."""
        try:
            flow.submit(run_id=RUN, timeout_s=self.plan.deadline_s or None)
        except StoreUnavailable:
            self.after(500, self.current, self.submit)

    def _cancel(self) -> None:
        if not self.watch.seen.submitted:
            return
        try:
            self.engine.cancel(RUN, "enough")
        except redis.RedisError:
            self.note("the cancel did not get through")

    def _resolve(self, n: int, p: int) -> None:
        """The outside world completes a promise, and says so until the run has ended."""
        if self.watch.seen.ended:
            return
        self.after(3000, Process("outside"), self._resolve, n, p)
        good = self.plan.joins[n].good[p]
        error = describe(ValueError(plans.message(n, p)), step=f"p{n}.{p}")
        outcome = f"v{plans.value(n, p)}" if good else encode_error(error)
        with suppress(redis.RedisError):
            _, ending = self.store.resolve(RUN, f"p{n}.{p}", outcome, token=uuid4().hex)
            if ending is not None:
                self.engine.follow(RUN, ending)

    def _send(self, name: str, number: int) -> None:
        """Somebody sends one message after the other until the run has ended."""
        if self.watch.seen.ended:
            return
        process = self.current
        value = 1000 * (SENDERS.index(name) + 1) + number
        try:
            with suppress(redis.RedisError):
                _, ending = self.store.send(RUN, "messages", f"v{value}", token=f"{name}.{number}")
                self.engine.follow(RUN, ending)
        finally:
            wait_ms = self.random.choice([1, 50, 400, 3000])
            self.after(wait_ms, Process(name) if process.dead else process, self._send, name, number + 1)

    def action_of(self, ref: PartRef, undoes: str | None) -> int | None:
        """The await of the plan that a part belongs to; None: it undoes something."""
        return None if undoes or ref.p.endswith("u") else ref.n

    # --- Redis' two keys that end by themselves --------------------------------------

    def over_keys(self, keys: Any) -> list[tuple[str, ...]]:
        over = [key for key, at_ms in ((keys[0], self._lease_ms), (keys[3], self._raised_ms)) if self.ms >= at_ms]
        return [("DEL", *over)] if over else []

    def swept(self) -> None:
        self._lease_ms = self.ms + LEASE_MS
        if self.ms >= self._raised_ms:
            self._raised_ms = self.ms + RAISED_MS

    # --- the play --------------------------------------------------------------------

    def play(self) -> None:
        """Everything, to the end.

        Raises:
            Violation: A rule was broken.
        """
        self.after(0, Process("client"), self.submit)
        self.run_until(self.profile.until_ms + PATIENCE_MS, lambda: self.watch.seen.ended)
        if not self.watch.seen.ended:
            raise Violation(f"stuck: {ending.left(self)}, {self.watch.seen.log}")
        self.run_until(self.ms + self.random.choice([0, 300, 3000]))
        ending.calm_down(self)
        ending.check(self)
