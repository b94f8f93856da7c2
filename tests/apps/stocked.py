"""Stock Celery canvas in workflows: plain tasks, steps and both, and one queue that nobody serves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery, chain, chord, group
from kombu import Queue

import canvas
from canvas import Run, StepFailed, TerminalError, TimedOut, step, with_timeout, workflow
from saga import Saga

app = Celery("stocked", broker=os.environ.get("REDIS_URL"), set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_queues=[Queue("celery"), Queue("attic")],
    worker_hijack_root_logger=False,
)
canvas.install(app)


@app.task(name="stocked.plus")
def plus(left: int, right: int) -> int:
    return left + right


@app.task(name="stocked.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="stocked.bad")
def bad(*_: Any) -> None:
    raise TerminalError("no such thing", code=404)


@app.task(name="stocked.unkept", ignore_result=True)
def unkept(_: Any = None) -> None:
    raise LookupError("nobody keeps this")


@app.task(name="stocked.far", queue="attic")
def far() -> int:
    return 1


@dataclass(frozen=True)
class Box:
    size: int


@step(name="stocked.box")
def box(size: int) -> Box:
    return Box(size)


@step(name="stocked.size")
def size(of: Box) -> int:
    return of.size


@step(name="stocked.undo")
def undo(it: Any = None) -> None:
    redis.Redis.from_url(os.environ["REDIS_URL"]).rpush("notes", f"undo {it}")


CANVASES: dict[str, Any] = {
    "task": lambda: plus.s(1, 2),
    "chain": lambda: chain(plus.s(1, 2), plus.s(3), plus.s(4)),
    "group": lambda: group(plus.s(n, 1) for n in range(3)),
    "chord": lambda: chord([plus.s(1, 1), plus.s(2, 2)], total.s()),
    "chain with a group in it": lambda: chain(plus.s(1, 1), group(plus.s(1), plus.s(2)), total.s()),
    "chain that ends with a group": lambda: chain(plus.s(1, 1), group(plus.s(1), plus.s(2))),
    "chord in a chord": lambda: chord([chord([plus.s(1, 1), plus.s(1, 2)], total.s()), plus.s(1, 1)], total.s()),
    "steps": lambda: chain(box.s(7), size.s()),
    "a step's value": lambda: chain(plus.s(1, 2), box.s()),
    "chunks": lambda: plus.chunks(zip(range(4), range(4), strict=True), 2),
    "bad task": bad.s,
    "bad first": lambda: chain(bad.s(), plus.s(1)),
    "bad last": lambda: chain(plus.s(1, 2), bad.s()),
    "bad in a group": lambda: group(plus.s(1, 1), bad.s()),
    "bad in a header": lambda: chord([plus.s(1, 1), bad.s()], total.s()),
    "bad body": lambda: chord([plus.s(1, 1), plus.s(2, 2)], bad.s()),
    "bad in an inner header": lambda: chord([chord([plus.s(1, 1), bad.s()], total.s()), plus.s(1, 1)], total.s()),
    "unkept": lambda: chain(unkept.s(), plus.s(1)),
    "unkept in a header": lambda: chord([unkept.s(), plus.s(1, 1)], total.s()),
}


@workflow(name="stocked.one")
async def one(run: Run, name: str) -> Any:
    try:
        value = await run.apply(CANVASES[name]())
    except StepFailed as error:
        return [error.message, error.code, error.is_a(TerminalError), error.is_a(LookupError)]
    return {"value": value, "is": type(value).__name__}


@workflow(name="stocked.unserved")
async def unserved(run: Run) -> list[str]:
    async with Saga(run, "s") as saga:
        try:
            await with_timeout(
                saga.safe_step("far").with_compensation(undo).execute(run.apply(chain(far.s(), plus.s(1)))), 0.5
            )
        except TimedOut as error:
            await saga.rollback()
            return [str(error)]
    return []


@workflow(name="stocked.after")
async def after(run: Run) -> int:
    """An await before, a canvas, and one after it."""
    first = await size.s(Box(1))
    second = await run.apply(chord([plus.s(first, 1), plus.s(first, 2)], total.s()))
    return await size.s(Box(second))
