"""Workers: a parent with its heartbeat and sweep, and children that run what comes in. Any of them may die."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery.app.task import Context
from celery.exceptions import Ignore
from celery.exceptions import Reject as CeleryReject
from celery.exceptions import Retry as CeleryRetry
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas import perform, settling
from canvas.heartbeat import Heartbeat
from canvas.lives import turn_died
from canvas.pulse import Sweeper
from canvas.request import StepRequest
from simulation.broker import Sent, SimBacklog
from simulation.flows import Running
from status.records import Grant, PartRef

if TYPE_CHECKING:
    from simulation.in_place import SimHolding
    from simulation.world import World

CHILDREN, PREFETCH = 2, 2
BEAT_MS = 1000


class Died(BaseException):
    """The process that was doing this is no more."""


class Process:
    """Something that does one thing at a time, and may die in the middle of it."""

    def __init__(self, name: str, host: Host | None = None) -> None:
        self.name = name
        self.host = host
        self.gone = False
        self.busy = False
        self.waiting: list[Any] = []
        self.met = ""  #: the server that its connection leads to

    @property
    def dead(self) -> bool:
        return self.gone or (self.host is not None and self.host.gone)


class SimRequest:
    """What the parent knows of a step that runs: the real request's release, without Celery's pool."""

    release = StepRequest._release

    def __init__(self, host: Host, task: Any, sent: Sent, ref: PartRef, token: str) -> None:
        self._app = host.world.app
        self.task, self.hostname, self.request_dict = task, host.name, sent.headers
        self.celeriac_ref = ref
        self.celeriac_token = token


@dataclass
class Job:
    """A message in a child's hands."""

    sent: Sent
    task: Any = None
    context: Any = None
    request: SimRequest | None = None
    grant: Grant | None = None
    ends: bool = False  #: its body is over, and called again to say what came of it
    again: bool = False  #: it failed and is to be made again


class Child(Process):
    """A pool process."""

    host: Host
    job: Job | None = None
    holding: SimHolding | None = None

    def take(self, sent: Sent) -> None:
        """Do what a message asks for; a step's body goes on by itself."""
        world = self.host.world
        args, kwargs, embed = sent.body
        task = world.app.tasks[sent.headers["task"]]
        job = self.job = Job(sent, task)
        if getattr(task, "is_workflow", False):
            job.context = Context(
                {**sent.headers, "hostname": self.host.name}, args=args, kwargs=kwargs, called_directly=False
            )
            with requested(job):
                task(*args)
            self.free()
            return
        ref = PartRef.parse(sent.id)
        assert ref is not None, f"{sent.id} is no message of ours"
        token = uuid4().hex
        job.request = SimRequest(self.host, task, sent, ref, token)
        self.host.requests.append(job.request)
        headers = {**sent.headers, "hostname": self.host.name, "celeriac_token": token}
        job.context = Context(headers, args=args, kwargs=kwargs, chord=embed["chord"], called_directly=False)
        try:
            self._attempt()
        except Running:
            took_ms = world.faults.body_ms(undo=bool(sent.headers.get("celeriac_undoes")))
            world.after(took_ms, self, self.end)
        except Ignore:
            self.free()
        except CeleryReject:
            world.after(1000, None, world.broker.give_back, sent)
            self.free()
        else:
            self.settle()  # there was nothing to do

    def _attempt(self) -> None:
        """What the tracer calls. (The body is not run through: it begins, and is called again when it is over.)"""
        job = self.job
        args, kwargs, _ = job.sent.body
        try:
            with requested(job):
                perform.attempt(job.task, tuple(args), kwargs)
        except (Ignore, CeleryReject):
            raise
        except Exception as error:  # noqa: BLE001  # the step's own
            job.again = isinstance(error, CeleryRetry)

    def end(self) -> None:
        """The body is over."""
        self.job.ends = True
        self._attempt()
        self.settle()

    def in_place(self) -> None:
        """A step that its turn runs by itself, from its grant to its record."""
        job, world = self.job, self.host.world
        self._attempt()
        world.watch.ended(job.request.celeriac_token)
        with requested(job), world.watch.in_hook():
            settling.write_down(job.context, world.app)

    def settle(self) -> None:
        """What the real tracer does then."""
        job, world = self.job, self.host.world
        world.watch.ended(job.request.celeriac_token)
        if job.again:
            with requested(job), world.watch.in_hook():
                job.task.on_retry(None, None, None, None, None)
            self.free()
            return
        with requested(job), world.watch.in_hook():
            settling.write_down(job.context, world.app)
        world.after(1, self, self.after_return)

    def after_return(self) -> None:
        """The turn that the step owes, if it does."""
        with requested(self.job):
            settling.after_return(self.job.task)
        self.free()

    def free(self) -> None:
        """Ready for the next one."""
        job, self.job = self.job, None
        self.host.settled(job)
        self.host.assign()
        self.host.world.broker.pull()


class requested:  # noqa: N801  # reads as a function
    """The message is the task's current request in this block."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        self._job.task.request_stack.push(self._job.context)

    def __exit__(self, *_: object) -> None:
        self._job.task.request_stack.pop()


class Host:
    """A worker."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.gone = False
        self.stopped_until_ms = 0
        self.cut_until_ms = 0
        self._shaky_until_ms = 0
        self._beat_ms = world.ms
        self.requests: list[SimRequest] = []
        self.prefetched: list[Sent] = []
        self.parent, self.heart, self.sweeper = (
            Process(f"{name} {part}", self) for part in ("parent", "heart", "sweep")
        )
        self.children = [Child(f"{name} child{i}", self) for i in range(CHILDREN)]
        self._heartbeat = Heartbeat(world.engine)
        self._pulse = Sweeper(world.engine, name)
        self._pulse.backlog = SimBacklog(world.app, world)
        world.after(world.random.randint(1, BEAT_MS), self.heart, self.beat)
        world.after(world.random.randint(1, BEAT_MS), self.sweeper, self.sweep)

    # --- its threads ----------------------------------------------------------------

    def beat(self) -> None:
        """As `Heartbeat.beat_for_ever` does each second."""
        begun_ms = self.world.ms
        try:
            self._heartbeat.beat()
            for child in self.children:
                if child.holding and child.holding.lease and not child.dead:
                    self.world.store.vouch(self.world.run_id, [(0, "turn", child.holding.lease)])
            self._beat_ms = begun_ms
        except RedisError:
            self.world.note(f"{self.name}: no heartbeat")
        self.world.after(BEAT_MS, self.heart, self.beat)

    def sweep(self) -> None:
        """As `Sweeper.sweep_for_ever` does, without the wake-up calls, which may be lost anyway."""
        rest_s = 1.0
        try:
            rest_s = self._pulse.round()
        except (RedisError, OperationalError, OSError):
            self.world.note(f"{self.name}: no sweep")
        self.world.after(max(1, round(rest_s * 1000)), self.sweeper, self.sweep)

    # --- trouble --------------------------------------------------------------------

    def stop(self, ms: int) -> None:
        """SIGSTOP, and SIGCONT after `ms`."""
        self.world.note(f"{self.name} stands still for {ms} ms")
        self.stopped_until_ms = max(self.stopped_until_ms, self.world.now_ms + ms)
        self.world.after(ms, None, self.world.broker.pull)
        self.shaken(ms)

    def cut(self, ms: int) -> None:
        """It does not reach Redis."""
        self.world.note(f"{self.name} is cut off for {ms} ms")
        self.cut_until_ms = self.world.ms + ms
        self.shaken(ms)

    def shaken(self, ms: int) -> None:
        """Nobody vouches for its steps meanwhile, and for a moment after."""
        if ms >= 2 * BEAT_MS:
            self.world.watch.cut_off(self)
        self._shaky_until_ms = max(self._shaky_until_ms, self.world.ms + ms + 2 * BEAT_MS)

    @property
    def shaky(self) -> bool:
        return self._shaky_until_ms > self.world.ms

    @property
    def late(self) -> bool:
        """Whether its heart has not vouched for anything for so long, since others had the processor time and again."""
        return self.world.ms - self._beat_ms > 3 * BEAT_MS

    # --- messages -------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        return self.stopped_until_ms > self.world.now_ms

    @property
    def has_room(self) -> bool:
        return not self.gone and not self.stopped and len(self.prefetched) < PREFETCH

    def receive(self, sent: Sent) -> None:
        self.prefetched.append(sent)
        self.assign()

    def assign(self) -> None:
        """Give what was prefetched to whoever is free."""
        for child in self.children:
            if self.prefetched and child.job is None and not child.dead:
                sent = self.prefetched.pop(0)
                child.job = Job(sent)
                self.world.after(1, child, child.take, sent)

    def settled(self, job: Job | None) -> None:
        """A message was dealt with."""
        if job is not None and job.request in self.requests:
            self.requests.remove(job.request)

    # --- death ----------------------------------------------------------------------

    def lose_child(self, child: Child) -> None:
        """A pool process dies; its parent sees it a moment later."""
        child.gone = True
        self.world.note(f"{child.name} died")
        self.world.after(self.world.faults.notice_ms(), self.parent, self.notice, child)

    def notice(self, child: Child) -> None:
        """As `StepRequest.on_failure` does for a lost process; the pool starts another."""
        self.children[self.children.index(child)] = Child(child.name, self)
        self._give_up(child)
        job = child.job
        if job is not None and job.request is not None:
            job.request.release()
        elif job is not None and job.context is not None:
            turn_died(self.world.engine, job.sent.body[0][0])  # as `TurnRequest.on_failure` does
        self.settled(job)
        self.assign()
        self.world.broker.pull()

    def _give_up(self, child: Child) -> None:
        """As the heartbeat does with what a process that is gone had in place: all of it, once Redis is there."""
        if child.holding is None:
            return
        try:
            if child.holding.lease:
                self.world.store.lapse(self.world.run_id, child.holding.lease)
            for request, running in list(child.holding.rows):
                ref = request.celeriac_ref
                if not running:
                    self.world.store.leaving(ref.run_id, [(ref.n, ref.p, request.celeriac_token)])
                request.release()
        except RedisError:
            self.world.after(BEAT_MS, self.heart, self._give_up, child)
        else:
            child.holding.drop()

    def die(self) -> None:
        """All of it is gone, and comes back as another. Its messages may come back one day."""
        world = self.world
        self.gone = True
        world.note(f"{self.name} died, sweep and all")
        held = [*self.prefetched, *(child.job.sent for child in self.children if child.job)]
        for sent in held:
            if world.random.random() < 0.5:
                world.after(world.faults.late_ms(), None, world.broker.queued, sent)
        world.after(world.faults.restart_ms(), None, world.replace, self)

    def stop_steps(self, tokens: list[str]) -> None:
        """As the control command `celeriac_stop` does: terminate those that hold these claims."""
        for child in self.children:
            job = child.job
            if job and job.request and job.request.celeriac_token in tokens and not child.dead:
                self.lose_child(child)
