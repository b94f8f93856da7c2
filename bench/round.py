"""`celery -A bench.round worker`: an app with a run that begins anew after each step."""

from __future__ import annotations

import os

from celery import Celery

import canvas
from bench.app import SETTINGS
from canvas import Run, step, workflow

app = Celery("round", broker=os.environ["REDIS_URL"])
app.conf.update(SETTINGS)
canvas.install(app, redis_url=os.environ["REDIS_URL"])
app.set_default()


@step(name="round.add")
def add(total: int) -> int:
    return total + 1


@workflow(name="round.count")
async def count(run: Run, rounds: int, total: int = 0) -> int:
    """One step a round."""
    total = await add.s(total)
    return total if total == rounds else await run.restart(rounds, total)
