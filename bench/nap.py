"""`celery -A bench.nap worker`: an app whose runs sleep, or wait for somebody, for days."""

from __future__ import annotations

import os

from celery import Celery

import canvas
from bench.app import SETTINGS
from canvas import Run, promise, race_promise_with_timeout, workflow

#: Far beyond any measurement.
DAYS_S = 30 * 86_400

app = Celery("nap", broker=os.environ["REDIS_URL"])
app.conf.update(SETTINGS)
canvas.install(app, redis_url=os.environ["REDIS_URL"])
app.set_default()

call = promise("call", str)


@workflow(name="nap.sleep")
async def sleep(run: Run, n: int) -> int:
    await run.sleep(DAYS_S)
    return n


@workflow(name="nap.wait")
async def wait(run: Run, n: int) -> str:
    answer = await race_promise_with_timeout(call, DAYS_S)
    return f"{run.id} {n}: {'nobody' if answer.timed_out else answer.value}"
