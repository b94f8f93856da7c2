"""Steps and workflows that end in ways that nobody expects of them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

import redis
from celery import Celery

import canvas
from canvas import Cancelled, Retry, Run, race, step, workflow

app = Celery("odd", broker=os.environ.get("REDIS_URL"))
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
if "ODD_SOFT_TIME_LIMIT_S" in os.environ:
    app.conf.task_soft_time_limit = float(os.environ["ODD_SOFT_TIME_LIMIT_S"])
if "ODD_POOL_LIMIT" in os.environ:
    app.conf.broker_pool_limit = int(os.environ["ODD_POOL_LIMIT"])
canvas.install(app)

ONCE = Retry(max_attempts=1)


def count(what: str) -> None:
    """Say that a body has run."""
    redis.Redis.from_url(os.environ["REDIS_URL"]).incr(f"odd:{what}")


class Mute(Exception):  # noqa: N818  # it is one
    """Has a slip that is made often: what it says is no text."""

    def __str__(self) -> Any:
        return self.args[0]

    @property
    def code(self) -> int:
        raise KeyError(self.args[0])


def go_wrong(how: str) -> None:
    match how:
        case "exits":
            sys.exit(3)
        case "cancelled":
            raise Cancelled("I give up")
        case "asyncio":
            raise asyncio.CancelledError
        case "mute":
            raise Mute(404)


@step(name="odd.wrong", retry=ONCE)
def wrong(how: str) -> None:
    count("wrong")
    go_wrong(how)


@step(name="odd.wrong_local", retry=ONCE, local=True)
def wrong_local(how: str) -> None:
    count("wrong")
    go_wrong(how)


@workflow(name="odd.asks")
async def asks(run: Run, how: str, local: bool) -> None:
    await (wrong_local if local else wrong).s(how)


@workflow(name="odd.wrong_itself")
async def wrong_itself(run: Run, how: str) -> None:
    go_wrong(how)


def refuse(*_: Any) -> None:
    raise RuntimeError("not today")


@step(name="odd.refused", before_start=refuse, retry=ONCE)
def refused() -> None:
    count("refused")


@workflow(name="odd.refused_first")
async def refused_first(run: Run) -> None:
    await refused.s()


def spend(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        threading.Event().wait(0.01)


@step(name="odd.limited", soft_time_limit=0.5, retry=ONCE)
def limited(seconds: float) -> str:
    count("limited")
    spend(seconds)
    return "in time"


@step(name="odd.unlimited", retry=ONCE)
def unlimited(seconds: float) -> str:
    spend(seconds)
    return "in time"


@step(name="odd.near", local=True, retry=ONCE)
def near(seconds: float) -> str:
    spend(seconds)
    return "near"


@workflow(name="odd.goes_on")
async def goes_on(run: Run, seconds: float, after_s: float) -> list[str]:
    """A step that is in time, and a turn and a step in place that take longer than was left of it."""
    first = await limited.s(seconds)
    spend(after_s)
    return [first, await near.s(after_s)]


@workflow(name="odd.goes_on_unlimited")
async def goes_on_unlimited(run: Run, seconds: float, after_s: float) -> list[str]:
    first = await unlimited.s(seconds)
    spend(after_s)
    return [first, await near.s(after_s)]


@step(name="odd.slow_to_record", soft_time_limit=0.4, retry=ONCE)
def slow_to_record() -> str:
    """Its time is up while its outcome waits for Redis."""
    count("slow")
    redis.Redis.from_url(os.environ["REDIS_URL"]).client_pause(800, all=True)
    return "in time"


@workflow(name="odd.records_late")
async def records_late(run: Run) -> str:
    return await slow_to_record.s()


@step(name="odd.swift")
def swift() -> str:
    spend(0.1)
    return "swift"


@step(name="odd.lasting", interruptible=True)
def lasting() -> str:
    spend(60.0)
    return "never"


@workflow(name="odd.races")
async def races(run: Run) -> str:
    return (await race(swift.s(), lasting.s())).value


@app.task(name="odd.stock", soft_time_limit=0.3)
def stock() -> str:
    """A task of Celery's own in the same process."""
    spend(5.0)
    return "never"
