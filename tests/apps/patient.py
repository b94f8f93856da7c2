"""An app on the embedded server whose runs wait for days."""

from __future__ import annotations

from celery import Celery

import canvas
from canvas import Run, promise, race_promise_with_timeout, workflow

app = Celery("patient", set_as_current=False)
canvas.install(app)
app.set_default()

DAYS_S = 3 * 86_400

answer = promise("answer", int)


@workflow(name="patient.sleep")
async def sleep(run: Run) -> str:
    begin = run.now()
    await run.sleep(DAYS_S)
    return f"woken, asleep since {begin:%Y}"


@workflow(name="patient.ask")
async def ask(run: Run) -> str:
    said = await race_promise_with_timeout(answer, DAYS_S)
    return "nobody" if said.timed_out else f"said {said.value}"
