"""A worker in the test's own process: does what messages ask for, as Celery's would; it may die in the middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from celery.app.task import Context
from celery.exceptions import Ignore
from celery.exceptions import Reject as CeleryReject
from celery.exceptions import Retry as CeleryRetry

from canvas import perform, settling
from canvas.payload import compact
from canvas.publisher import Message
from canvas.testing.deaths import Died, TestBroke, names_of
from canvas.testing.fakes import FOR_EVER, Act
from status.records import PartRef

if TYPE_CHECKING:
    from canvas.testing.world import World

HOSTNAME = "worker@test"


class Running(BaseException):
    """The body of a step has begun, and will be called when its virtual time is over."""


class Stopped(Exception):  # noqa: N818
    """What a hanging step raises when it sees that nobody waits for it."""


@dataclass
class Attempt:
    """One attempt of a step, as the test saw it.

    Attributes:
        step: The task's name; of a fake child, the workflow's.
        label: What the call was `.named(...)`, or the same.
        args: As the step got them.
        number: 1 is the first.
        at_s: Seconds of virtual time since the world began.
        outcome: `running`, `done`, `failed`, `retried`, `died` or `stopped`.
        value: What it returned.
        error: What it raised.
        undoes: In a compensation: the idempotency key of what it undoes.
    """

    run_id: str
    step_id: str
    step: str
    label: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int
    idempotency_key: str
    undoes: str | None
    at_s: float
    outcome: str = "running"
    value: Any = None
    error: BaseException | None = None


@dataclass
class Job:
    """A step's message in hand; a body that takes time, once it has begun."""

    worker: Worker
    message: Message
    task: Any
    context: Any
    ref: PartRef
    token: str
    act: Act = field(default_factory=Act)
    seen: Attempt | None = None

    @property
    def takes_s(self) -> float:
        return self.act.takes_s

    def end(self) -> None:
        self.worker.attempt(self)

    def killed(self) -> None:
        if self.seen is not None:
            self.seen.outcome = "stopped"


class _StandIn:
    """A step whose function is another."""

    def __init__(self, step: Any, run: Any) -> None:
        self._step = step
        self.run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)


class Worker:
    """Runs turns and steps."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(self, message: Message) -> None:
        """Do what a message asks for; a body that takes time goes on by itself."""
        task = self._world.task_of(message)
        args, kwargs, embed = json.loads(compact(message.body))
        token = token_hex(16)
        headers = {**message.headers, "task": task.name, "hostname": HOSTNAME, "celeriac_token": token}
        context = Context(headers, args=args, kwargs=kwargs, chord=embed["chord"], called_directly=False)
        ref = PartRef.parse(message.headers["id"])
        if ref is not None:
            self.attempt(Job(self, message, task, context, ref, token))
            return
        with self._world.deaths.at_work(message), _requested(task, context):
            task(*args, **kwargs)

    def attempt(self, job: Job) -> None:
        """What Celery's tracer calls, and what it does with what came of it."""
        with self._world.deaths.at_work(job.message), _requested(job.task, job.context):
            try:
                again = self._perform(job)
            except Died:
                if job.seen is not None:
                    job.seen.outcome = "died"
                raise
            except Running:
                self._world.bodies.begin(job)
                return
            except (Ignore, CeleryReject):
                return
            self._settle(job, again=again)

    @staticmethod
    def _settle(job: Job, *, again: bool) -> None:
        try:
            if again:
                job.task.on_retry(None, None, None, None, None)
                return
            settling.write_down(job.context, job.task.app)
        except Died:
            if job.seen is not None:
                job.seen.outcome = "died"
            raise
        settling.after_return(job.task)

    def _perform(self, job: Job) -> bool:
        """Returns whether it is made again."""
        step: Any = _StandIn(job.task, lambda *args, **kwargs: self._body(job, args, kwargs))
        try:
            perform.attempt(step, tuple(job.context.args), job.context.kwargs)
        except (Ignore, CeleryReject):
            raise
        except Exception as error:  # noqa: BLE001  # the step's own
            if job.seen is not None and job.seen.outcome == "failed" and isinstance(error, CeleryRetry):
                job.seen.outcome = "retried"
            return isinstance(error, CeleryRetry)
        return False

    def _body(self, job: Job, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen = job.seen
        if seen is None:
            seen = job.seen = self._begins(job, args, kwargs)
            job.act = self._world.casting.act_of(seen.run_id, (seen.label, seen.step), job.task)
            if job.act.takes_s:
                raise Running
        if job.act.dies == "before":
            raise Died
        if job.takes_s == FOR_EVER:
            seen.outcome, seen.error = "stopped", Stopped(f"{seen.label} was stopped")
            raise seen.error
        self._call(job, seen, job.act, args, kwargs)
        if job.act.dies == "after":
            raise Died
        if seen.error is not None:
            raise seen.error
        return seen.value

    def _begins(self, job: Job, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempt:
        ref, headers = job.ref, job.message.headers
        label, name = names_of(job.message)
        seen = Attempt(
            ref.run_id, ref.step_id, name, label, tuple(args), dict(kwargs), ref.attempt,
            headers.get("celeriac_key") or ref.idempotency_key, headers.get("celeriac_undoes"), self._world.now_s,
        )  # fmt: skip
        self._world.attempts.append(seen)
        return seen

    @staticmethod
    def _call(job: Job, seen: Attempt, act: Act, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        body = act.body or job.task.run
        try:
            seen.value = body(*args, **kwargs)
            seen.outcome = "done"
            if act.body is not None:
                job.task.codec.result.dumps(seen.value)
        except Exception as error:  # it is the step's, raised again by who called this
            if act.body is not None and (isinstance(error, AssertionError) or seen.outcome == "done"):
                raise TestBroke(f"the fake of {seen.label}: {error}") from error
            seen.outcome, seen.error = "failed", error


@contextmanager
def _requested(task: Any, context: Any) -> Iterator[None]:
    """The message is the task's current request in this block."""
    task.request_stack.push(context)
    try:
        yield
    finally:
        task.request_stack.pop()
