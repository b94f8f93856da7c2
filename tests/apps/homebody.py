"""An app that names neither broker nor Redis: it lives on the embedded server."""

from __future__ import annotations

from celery import Celery

import canvas
from canvas import Run, step, workflow

app = Celery("homebody", set_as_current=False)
canvas.install(app)
app.set_default()


@step(name="homebody.cook")
def cook(dish: str) -> str:
    return f"{dish}, hot"


@workflow(name="homebody.dine")
async def dine(run: Run, dish: str) -> str:
    return await cook.s(dish)
