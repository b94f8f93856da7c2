"""Steps that say on disk when they run, so that what Redis forgets is seen all the same."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from celery import Celery

import canvas
from canvas import Run, step, workflow

app = Celery("faults", broker=os.environ.get("BROKER_URL") or os.environ.get("REDIS_URL"))
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
canvas.install(app)

FOLDER = "FAULTS_FOLDER"


def says(name: str, line: str) -> None:
    """Adds a line to a file; whole, whoever else writes."""
    with (Path(os.environ[FOLDER]) / name).open("a") as file:
        file.write(line + "\n")


@step(name="faults.hold")
def hold(name: str) -> str:
    """Runs until the file `<name>.go` is there."""
    says(name, "begin")
    while not (Path(os.environ[FOLDER]) / f"{name}.go").exists():
        threading.Event().wait(0.02)
    says(name, "end")
    return name


@step(name="faults.count")
def count(name: str, n: int) -> int:
    says(name, str(n))
    return n + 1


@step(name="faults.large")
def large(size: int) -> str:
    says("large", "begin")
    return "x" * size


@workflow(name="faults.holding")
async def holding(run: Run, name: str) -> str:
    return await hold.s(name)


@workflow(name="faults.counting")
async def counting(run: Run, name: str) -> int:
    n = 0
    while n < 4:
        n = await count.s(name, n)
    return n


@workflow(name="faults.larger")
async def larger(run: Run, size: int) -> int:
    return len(await large.s(size))


@workflow(name="faults.echo")
async def echo(run: Run, size: int) -> str:
    return "x" * size
