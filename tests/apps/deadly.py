"""An app whose steps and workflows kill the process that runs them, or take long while one is killed."""

from __future__ import annotations

import os
import signal
import threading

import redis
from celery import Celery

import canvas
from canvas import Retry, Run, current_step, fan_out_fail, step, workflow

app = Celery("deadly", broker=os.environ.get("REDIS_URL"))
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=4)
canvas.install(app)


def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@step(name="deadly.step")
def kills() -> None:
    _redis().incr("killed")
    _die()


@step(name="deadly.once", idempotent=False)
def kills_once() -> None:
    _redis().incr("killed")
    _die()


@step(name="deadly.fine")
def fine(n: int = 0) -> int:
    return n


@step(name="deadly.long", retry=Retry(1))
def long(seconds: float, what: str = "long") -> str:
    """Says that it begins, and that it has ended; each is in a list."""
    _redis().rpush("began", what)
    threading.Event().wait(seconds)
    _redis().rpush("ended", what)
    return f"{what} {current_step().attempt}"


@step(name="deadly.twice", retry=Retry(3, first_s=1.5, jitter=0))
def twice(what: str) -> int:
    """Fails the first time."""
    _redis().rpush("began", what)
    if current_step().attempt == 1:
        raise ConnectionError(what)
    return current_step().attempt


@step(name="deadly.until")
def until(what: str, lives: int) -> int:
    """Kills its process so often, then lives."""
    life = int(_redis().incr(f"lives:{what}"))
    if life <= lives:
        _die()
    return life


@workflow(name="deadly.poison")
async def poison(run: Run) -> None:
    await kills.s()


@workflow(name="deadly.poison_once")
async def poison_once(run: Run) -> None:
    await kills_once.s()


@workflow(name="deadly.turn")
async def turn(run: Run, first: bool) -> str:
    """Its own code kills: at once, or after a step. Until somebody mends it: `mended` is set."""
    if not first:
        await fine.s()
    if not _redis().exists("mended"):
        _redis().incr("killed")
        _die()
    return "mended"


@workflow(name="deadly.several")
async def several(run: Run, seconds: float, number: int) -> list[str]:
    return list(await fan_out_fail(*[long.s(seconds, f"{run.id}.{n}") for n in range(number)]))


@workflow(name="deadly.in_a_row")
async def in_a_row(run: Run, seconds: float, number: int) -> list[str]:
    return [await long.s(seconds, f"{run.id}.{n}") for n in range(number)]


@workflow(name="deadly.again")
async def again(run: Run) -> int:
    return await twice.s(run.id)


@workflow(name="deadly.unlucky")
async def unlucky(run: Run, lives: int) -> int:
    return await until.s(run.id, lives)


@workflow(name="deadly.sleeps")
async def sleeps(run: Run, seconds: float) -> float:
    before = run.now()
    await run.sleep(seconds)
    return (run.now() - before).total_seconds()
