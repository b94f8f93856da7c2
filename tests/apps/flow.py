"""A small app with a step and a workflow for each thing that real workers are tested for."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import redis
from celery import Celery, current_task

import canvas
from canvas import (
    Cancelled,
    Retry,
    Run,
    StepFailed,
    StepTimeout,
    TerminalError,
    TimedOut,
    current_step,
    fan_out,
    fan_out_fail,
    next_turns,
    process_batch,
    quorum,
    race,
    step,
    with_timeout,
    workflow,
)
from saga import Saga

app = Celery("flow", broker=os.environ.get("REDIS_URL"))
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
canvas.install(app)

if go_on_s := os.environ.get("FLOW_GO_ON_S"):  # however busy this machine is
    next_turns.GO_ON_S = float(go_on_s)

NOTES = "notes"


def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


def _rest(seconds: float) -> None:
    threading.Event().wait(seconds)


# --- steps -----------------------------------------------------------------------------


@step(name="flow.add")
def add(left: int, right: int = 0) -> int:
    return left + right


@step(name="flow.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@step(name="flow.note")
def note(what: str) -> str:
    """Leaves a trace: the effect that must be there once."""
    _redis().rpush(NOTES, what)
    return what


@step(name="flow.undo")
def undo(what: str | None, label: str = "?") -> None:
    _redis().rpush(NOTES, f"undo {what or label}")


@step(name="flow.undo_call")
def undo_call(label: str) -> None:
    _redis().rpush(NOTES, f"undo {label}")


@step(name="flow.fail", retry=Retry(1))
def fail(message: str = "no", after_s: float = 0) -> str:
    _rest(after_s)
    raise TerminalError(message, 422)


@step(name="flow.flaky", retry=Retry(3, first_s=0.05, jitter=0))
def flaky(failures: int) -> int:
    """Fails so often, then gives the attempt that it was."""
    attempt = current_step().attempt
    if attempt <= failures:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@step(name="flow.slow")
def slow(seconds: float, what: str = "slow") -> str:
    """Goes on when it is stopped."""
    _rest(seconds)
    _redis().rpush(NOTES, what)
    return what


@step(name="flow.hog", interruptible=True)
def hog(seconds: float, what: str = "hog") -> str:
    """Its process may be killed."""
    _rest(seconds)
    _redis().rpush(NOTES, what)
    return what


@step(name="flow.tidy", interruptible=True)
def tidy(seconds: float) -> str:
    """Leaves nothing behind when it is interrupted."""
    try:
        _rest(seconds)
    finally:
        _redis().rpush(NOTES, "tidied")
    _redis().rpush(NOTES, "late")
    return "tidy"


@step(name="flow.makes_do", interruptible=True)
def makes_do(seconds: float) -> str:
    """Makes do with what it has when it is interrupted."""
    try:
        _rest(seconds)
    except Cancelled:
        _redis().rpush(NOTES, "heard")
    return "part"


@step(name="flow.deaf", interruptible=True)
def deaf(seconds: float) -> str:
    """Goes on when it is interrupted."""
    end_s = monotonic() + seconds
    while monotonic() < end_s:
        try:
            _rest(0.05)
        except Cancelled:
            _redis().rpush(NOTES, "heard")
    _redis().rpush(NOTES, "late")
    return "deaf"


@step(name="flow.limited", timeout_s=0.3, retry=Retry(2, first_s=0.05, jitter=0), interruptible=True)
def limited(seconds: float) -> int:
    _rest(seconds)
    return current_step().attempt


@step(name="flow.dies_once")
def dies_once(key: str) -> int:
    """Its process dies the first time."""
    lives = int(_redis().incr(key))
    if lives == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return lives


@step(name="flow.stays_once")
def stays_once(key: str) -> str:
    """Stays for long the first time; else gives the process that ran it."""
    if int(_redis().incr(key)) == 1:
        _rest(60)
    return str(os.getpid())


@step(name="flow.meet", retry=Retry(1))
def meet(key: str, others: int) -> int:
    """Waits a second until so many run at once."""
    client = _redis()
    client.incr(key)
    for _ in range(100):
        if int(client.get(key) or 0) >= others:
            return others
        _rest(0.01)
    raise TerminalError("alone")


@step(name="flow.heeds")
def heeds(seconds: float) -> str:
    """Looks whether it is stopped."""
    for _ in range(int(seconds / 0.05)):
        if current_step().cancelled:
            _redis().rpush(NOTES, "heeded")
            return "stopped"
        _rest(0.05)
    return "in vain"


@step(name="flow.heeds_its_time", timeout_s=0.3, retry=Retry(2, first_s=0.01, jitter=0))
def heeds_its_time() -> int:
    """Can't be killed; tidies up for a while when its time is up, and then fails."""
    attempt = current_step().attempt
    _redis().rpush(NOTES, f"begins {attempt}")
    if attempt == 1:
        while not current_step().cancelled:
            _rest(0.02)
        _rest(0.5)
        _redis().rpush(NOTES, "ends 1")
        raise ValueError("had no time")
    return attempt


@step(name="flow.undo_at_the_bank", retry=Retry(1))
def undo_at_the_bank(what: str | None) -> None:
    """Gives up as long as the bank is closed."""
    if not _redis().exists("bank"):
        raise TerminalError("the bank is closed", 503)
    _redis().rpush(NOTES, f"undo {what}")


# --- workflows -------------------------------------------------------------------------


@workflow(name="flow.everything")
async def everything(run: Run, n: int) -> dict[str, Any]:
    """One of each; the same on every pool."""
    said: dict[str, Any] = {}
    run.update_status(phase="single", progress=0.1, n=n)
    said["single"] = await add.s(n, right=1)
    said["all"] = list(await fan_out_fail(add.s(1), add.s(2), add.s(3)))
    run.update_status(phase="several", progress=0.5, n=None)
    result = await fan_out(add.s(1), fail.s("bad"), flaky.s(1))
    said["each"] = [list(result.results), [(index, error.message) for index, error in result.bad]]
    won = await race(fail.s(), add.s(5).named("second").after(30))
    said["race"] = [won.index, won.name, won.value]
    said["quorum"] = len(await quorum(2, add.s(1), add.s(2), fail.s()))
    started = run.now()
    await run.sleep(0.2)
    said["slept"] = run.now() - started >= timedelta(seconds=0.2)
    said["flaky"] = await flaky.s(2)
    try:
        await with_timeout(run.sleep(60), 0.1)
    except TimedOut:
        said["timed out"] = True
    try:
        await fan_out_fail(add.s(1), fail.s("gone"))
    except StepFailed as error:
        said["failed"] = [error.message, error.code, error.is_a(TerminalError)]
    said["uuid"] = run.uuid() != run.uuid()
    run.update_status(phase="done", progress=1.0)
    return said


@workflow(name="flow.fail_fast")
async def fail_fast(run: Run) -> str:
    try:
        await fan_out_fail(fail.s("first"), hog.s(3, "late"), hog.s(3, "late"), hog.s(3, "late"))
    except StepFailed as error:
        return error.message
    return "?"


@workflow(name="flow.racing")
async def racing(run: Run, quick_s: float, long_s: float) -> str:
    return (await race(hog.s(quick_s, "quick"), hog.s(long_s, "long"))).value


@workflow(name="flow.stopping")
async def stopping(run: Run, how: str) -> str:
    loser = {"tidy": tidy, "makes_do": makes_do, "deaf": deaf}[how]
    return (await race(hog.s(0.1, "quick"), loser.s(8.0))).value


@workflow(name="flow.meeting")
async def meeting(run: Run, key: str, number: int) -> int:
    return sum(await fan_out_fail(*[meet.s(key, number) for _ in range(number)]))


@workflow(name="flow.phases")
async def phases(run: Run, names: list[str]) -> None:
    for at, name in enumerate(names):
        run.update_status(phase=name, progress=at / len(names))
        await slow.s(0.15, name)


@workflow(name="flow.waiting")
async def waiting(run: Run) -> str:
    try:
        return await slow.s(0.1).within(30) + await hog.s(60, "never").within(0.3)
    except StepTimeout as error:
        return f"{error.step} {error.code}"


@workflow(name="flow.delayed")
async def delayed(run: Run) -> float:
    before = run.now()
    await add.s(1).after(0.4)
    return (run.now() - before).total_seconds()


@workflow(name="flow.limits")
async def limits(run: Run) -> list[Any]:
    said: list[Any] = [await limited.s(0)]
    try:
        await limited.s(30)
    except StepTimeout as error:
        said += [error.step, error.code]
    return said


@workflow(name="flow.long")
async def long(run: Run) -> str:
    try:
        return await heeds.s(30)
    except Cancelled:
        await note.s("cleaned up")
        raise


@workflow(name="flow.retries")
async def retries(run: Run, failures: int) -> int:
    return await flaky.s(failures)


@workflow(name="flow.fragile")
async def fragile(run: Run, key: str) -> int:
    return await dies_once.s(key)


@workflow(name="flow.orphan")
async def orphan(run: Run, key: str) -> str:
    return await stays_once.s(key)


@workflow(name="flow.late_loser")
async def late_loser(run: Run) -> str:
    async with Saga(run, "s") as saga:
        won = await (
            saga.safe_step("pay").with_compensation(undo).execute(race(slow.s(0.05, "quick"), slow.s(0.6, "late")))
        )
    return won.value


@workflow(name="flow.undone")
async def undone(run: Run) -> None:
    async with Saga(run, "s") as saga:
        await saga.safe_step("a").with_compensation(undo).execute(note.s("a"))
        await saga.safe_step("b").with_compensation(undo_call.s("b!")).execute(note.s("b"))
        await (
            saga.safe_step("c")
            .with_compensation(undo, "unknown")
            # Later: the sibling is to run by then, not to wait on its queue.
            .execute(fan_out_fail(slow.s(1.2, "c"), fail.s("c failed").after(0.6)))
        )


@workflow(name="flow.cancelled_in_saga")
async def cancelled_in_saga(run: Run) -> None:
    async with Saga(run, "s") as saga:
        await saga.safe_step("a").with_compensation(undo).execute(note.s("a"))
        await heeds.s(30)


@workflow(name="flow.gives_up")
async def gives_up(run: Run) -> None:
    async with Saga(run, "s") as saga:
        for what in ("a", "b"):
            await saga.safe_step(what).with_compensation(undo_at_the_bank).execute(note.s(what))
        await fail.s("sold out")


@workflow(name="flow.parent")
async def parent(run: Run) -> list[Any]:
    """Two children, of which one can be undone."""
    return list(await fan_out_fail(retries.s(1), cancelled_in_saga.s().with_run_id(f"{run.id}-child")))


@workflow(name="flow.patient")
async def patient(run: Run) -> int:
    return await heeds_its_time.s()


# --- short steps -----------------------------------------------------------------------


@step(name="flow.whose")
def whose(n: int) -> list[Any]:
    """Which process runs it, and as what."""
    current = current_step()
    return [n, os.getpid(), current.step_id, current.idempotency_key, current.attempt]


@step(name="flow.as_task")
def as_task(n: int) -> list[Any]:
    """What Celery says of it to its own code."""
    request = current_task.request
    return [current_task.name, request.id, request.root_id, request.retries, request.args, request.called_directly]


@dataclass
class Sum:
    """A type that is another thing as JSON."""

    value: int


@step(name="flow.sum_to")
def sum_to(n: int) -> Sum:
    """Calls itself."""
    return Sum(n + sum_to(n - 1).value) if n else Sum(0)


@step(name="flow.plus", interruptible=True)
def plus(left: int, right: int) -> int:
    """Always a message."""
    return left + right


@step(name="flow.adds_itself")
def adds_itself(n: int) -> int:
    """Calls another step as the function that it is."""
    return plus(n, 1)


@step(name="flow.elsewhere", queue="elsewhere")
def elsewhere() -> int:
    return os.getpid()


@step(name="flow.right_here", local=True, queue="nobody")
def right_here() -> int:
    return os.getpid()


@step(name="flow.sometimes", retry=Retry(3, first_s=0.05, jitter=0))
def sometimes(what: str, key: str) -> str:
    """Short, but for one time: it stays until it is let go, dies, or fails."""
    if what and int(_redis().incr(key)) == 1:
        if what == "stays":
            redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=None).blpop([f"{key}:go"], timeout=60)
        elif what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise ConnectionError("failed once")
    return what


@step(name="flow.nap")
def nap(n: int) -> int:
    _rest(0.01)
    return n


@workflow(name="flow.naps")
async def naps(run: Run, count: int, window: int) -> int:
    return sum(await process_batch(nap, range(count), window))


@workflow(name="flow.batch_of")
async def batch_of(run: Run, count: int, window: int) -> list[list[Any]]:
    return await process_batch(whose, range(count), window)


@step(name="flow.span")
def span(seconds: float) -> list[float]:
    """When it began and when it ended."""
    began_s = monotonic()
    _rest(seconds)
    return [began_s, monotonic()]


@workflow(name="flow.spans_of")
async def spans_of(run: Run, count: int, seconds: float) -> list[list[float]]:
    return list(await fan_out_fail(*(span.s(seconds) for _ in range(count))))


@workflow(name="flow.every_other")
async def every_other(run: Run, count: int, seconds: float) -> list[list[float]]:
    return list(await fan_out_fail(*(span.s(seconds if n % 2 else 0.0) for n in range(count))))


@workflow(name="flow.fan_of")
async def fan_of(run: Run, count: int) -> list[list[Any]]:
    return list(await fan_out_fail(*(whose.s(n) for n in range(count))))


@workflow(name="flow.in_a_row")
async def in_a_row(run: Run, count: int) -> list[list[Any]]:
    return [await whose.s(n) for n in range(count)]


@workflow(name="flow.tasks_in_a_row")
async def tasks_in_a_row(run: Run, count: int) -> list[list[Any]]:
    return [await as_task.s(n) for n in range(count)]


@workflow(name="flow.sums")
async def sums(run: Run, numbers: list[int]) -> list[int]:
    return [(await sum_to.s(n)).value for n in numbers]


@workflow(name="flow.steps_call_steps")
async def steps_call_steps(run: Run, count: int) -> int:
    total = 0
    for _ in range(count):
        total = await adds_itself.s(await plus.s(total, 1))
    return total


@workflow(name="flow.there_and_back")
async def there_and_back(run: Run, count: int) -> list[list[int]]:
    return [[(await whose.s(n))[1], await elsewhere.s()] for n in range(count)]


@step(name="flow.note_here", local=True)
def note_here(what: str) -> str:
    """Leaves a trace; told to, its process dies the first time."""
    count = _redis().rpush(f"{NOTES}:{what}", what)
    if what == "dies" and count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return what


@workflow(name="flow.which_run")
async def which_run(run: Run, count: int) -> list[str]:
    """What Celery says whose turn it is."""
    return [current_task.request.root_id for _ in range(count) if await right_here.s()]


@workflow(name="flow.notes_here")
async def notes_here(run: Run, count: int) -> list[str]:
    return [await note_here.s(str(n)) for n in range(count)]


@step(name="flow.fail_here", local=True, retry=Retry(1))
def fail_here() -> str:
    raise ValueError("not here")


@workflow(name="flow.fails_here")
async def fails_here(run: Run) -> None:
    await fan_out_fail(note_here.s("before"), fail_here.s(), note_here.s("after"))


@workflow(name="flow.dies_here")
async def dies_here(run: Run) -> list[str]:
    return [
        *await fan_out_fail(note_here.s("first"), note_here.s("dies"), note_here.s("last")),
        await note_here.s("end"),
    ]


@workflow(name="flow.all_here")
async def all_here(run: Run, count: int) -> int:
    return len({await right_here.s() for _ in range(count)})


@workflow(name="flow.then_not")
async def then_not(run: Run, what: str) -> list[str]:
    """Short steps, until this process knows that they are, and then one that is not."""
    said = [await sometimes.s("", run.id) for _ in range(8)]
    return [*said, await sometimes.s(what, run.id), *await fan_out_fail(sometimes.s("", run.id), sometimes.s("x", "x"))]
