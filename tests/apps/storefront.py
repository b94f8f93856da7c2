"""An app that calls a service of another: it has none of its code, only names and types."""

from __future__ import annotations

import os
from typing import Any, cast

from celery import Celery
from pydantic import BaseModel

import canvas
from canvas import Retry, Run, ServiceClient, TerminalError, fan_out, process_batch, race, step, workflow
from saga import Saga

app = Celery("storefront", broker=os.environ.get("REDIS_URL"))
app.conf.update(task_default_queue="front", worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
canvas.install(app)


class Order(BaseModel):
    item: str
    number: int = 1


class Reservation(BaseModel):
    id: str


reserve = ServiceClient("depot", "reserve", Order, Reservation, queue="depot", retry=Retry(3, first_s=0.01))
impatient = ServiceClient("depot", "reserve", Order, Reservation, queue="depot", timeout_s=2)
# An undo that gets the action's value must take None: that is what it gets when the value is not known.
wanted = cast("type[Reservation | None]", Reservation | None)
release = ServiceClient("depot", "release", wanted, type(None), queue="depot")
careless = ServiceClient("depot", "once", Order, str, queue="depot")
careful = ServiceClient("depot", "once", Order, str, queue="depot", idempotent=False)


@step(name="front.wrap")
def wrap(reservation_id: str) -> str:
    return f"wrapped {reservation_id}"


@workflow(name="front.buy", queue="front-turns")
async def buy(run: Run, item: str) -> str:
    reserved = await reserve.s(Order(item=item))
    return await wrap.s(reserved.id)


@workflow(name="front.wait", queue="front-turns")
async def wait(run: Run, item: str) -> str:
    return (await impatient.s(Order(item=item))).id


@workflow(name="front.many", queue="front-turns")
async def many(run: Run, items: list[str]) -> list[Any]:
    each = await fan_out(*(reserve.s(Order(item=item)) for item in items))
    first = await race(reserve.s(Order(item="gold")), reserve.s(Order(item="tin", number=2)).after(60))
    batch = await process_batch(reserve, [Order(item="nail", number=n) for n in range(5)], 2)
    return [[one and one.id for one in each.results], first.value.id, [one.id for one in batch]]


@workflow(name="front.batch", queue="front-turns")
async def batch(run: Run, n: int) -> list[str]:
    found = await process_batch(impatient, [Order(item="nail", number=n) for n in range(n)], 2, settle=True)
    return [str(error) for _, error in found.bad]


@workflow(name="front.regret", queue="front-turns")
async def regret(run: Run, item: str) -> None:
    async with Saga(run, "order") as saga:
        kept = await saga.safe_step("by value").with_compensation(release).execute(reserve.s(Order(item=item)))
        await saga.safe_step("as a call").with_compensation(release.s(kept)).execute(reserve.s(Order(item="tin")))
        raise TerminalError("changed my mind")


@workflow(name="front.once", queue="front-turns")
async def once(run: Run, knows: bool) -> str:
    return await (careful if knows else careless).s(Order(item="egg"))
