"""`celery -A bench.chain worker`: an app with a run that awaits one short step after another."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import worker_ready

import canvas
from bench.app import SETTINGS
from canvas import Run, step, workflow

app = Celery("chain", broker=os.environ["REDIS_URL"])
app.conf.update(SETTINGS)
canvas.install(app, redis_url=os.environ["REDIS_URL"])
app.set_default()


@step(name="chain.add")
def add(total: int) -> int:
    return total + 1


@workflow(name="chain.one_by_one")
async def one_by_one(run: Run, count: int) -> int:
    total = 0
    for _ in range(count):
        total = await add.s(total)
    return total


@worker_ready.connect
def _say_so(sender: object, **_: object) -> None:
    print(f"{getattr(sender, 'hostname', '')} ready.", flush=True)
