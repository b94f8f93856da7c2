"""An app of two workflows: one that a worker of the default queue can do, one that needs a queue of its own."""

from __future__ import annotations

import os

from celery import Celery
from kombu import Queue

import canvas
from canvas import Run, TerminalError, channel, promise, step, workflow

app = Celery("trips", broker=os.environ["REDIS_URL"], set_as_current=False)
app.conf.update(task_default_queue="celery", task_queues=[Queue("celery"), Queue("attic")])
canvas.install(app)


@step(name="trips.reserve")
def reserve(city: str) -> str:
    if city == "Atlantis":
        raise TerminalError(f"there is no way to {city}", code=404)
    return f"hotel in {city}"


@step(name="trips.fetch_suitcase", queue="attic")
def fetch_suitcase() -> bool:
    return True


@workflow(name="trips.book")
async def book(run: Run, city: str, nights: int = 1) -> str:
    run.update_status(phase="booking", progress=0.5, nights=nights)
    hotel = await reserve.s(city)
    run.update_status(phase="booked", progress=1.0)
    return hotel


@workflow(name="trips.pack")
async def pack(run: Run, city: str) -> bool:
    run.update_status(phase="packing", city=city)
    return await fetch_suitcase.s()


budget = promise("budget", int)


@workflow(name="trips.plan")
async def plan(run: Run, city: str) -> int:
    return await budget


stops = channel("stops", str)


@workflow(name="trips.tour")
async def tour(run: Run, seen: list[str]) -> list[str]:
    """Cities as they are sent, one a round, until the tour is home."""
    stop = await stops.receive()
    return seen if stop == "home" else await run.restart([*seen, stop])
