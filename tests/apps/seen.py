"""A small app whose runs are looked at: a tree of parent and child, a retry, an undo, a failure and a secret."""

from __future__ import annotations

import logging
import os
from typing import Any

from celery import Celery

import canvas
from canvas import Retry, Run, TerminalError, current_step, fan_out_fail, promise, step, workflow
from saga import Saga

app = Celery("seen", broker=os.environ.get("REDIS_URL"))
app.conf.update(
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
)
canvas.install(app)

logger = logging.getLogger("seen")


@step(name="seen.charge", retry=Retry(3, first_s=0.05))
def charge(order_id: str, card_number: str, options: dict[str, Any]) -> dict[str, str]:
    logger.info("charging %s", order_id)
    if current_step().attempt == 1:
        raise ConnectionError(f"not now: token=hunter2 of {order_id}")
    return {"order_id": order_id, "receipt_token": "hunter2"}


@step(name="seen.pack")
def pack(order_id: str) -> str:
    return f"parcel of {order_id}"


@step(name="seen.refund")
def refund(charged: dict[str, str] | None) -> None:
    """Nothing to do."""


@step(name="seen.refuse")
def refuse() -> None:
    raise TerminalError("no room, password=hunter2", code=404)


@workflow(name="seen.parcels")
async def parcels(run: Run, order_id: str) -> list[str]:
    run.update_status(phase="packing", progress=0.5)
    return list(await fan_out_fail(pack.s(order_id), pack.s(order_id).named("second")))


@workflow(name="seen.order")
async def order(run: Run, order_id: str, card_number: str) -> dict[str, Any]:
    run.update_status(phase="paying", progress=0.25)
    paid = await charge.s(order_id, card_number, {"api_key": "hunter2", "tries": 2})
    run.update_status(phase="shipping", progress=0.5)
    packed = await parcels.s(order_id).with_run_id(f"{run.id}-parcels")
    run.update_status(phase="done", progress=1.0)
    return {"paid": paid, "packed": packed}


@workflow(name="seen.undone")
async def undone(run: Run, order_id: str) -> None:
    async with Saga(run, "seen") as saga:
        run.update_status(phase="paying", progress=0.25)
        await saga.safe_step("charge").with_compensation(refund).execute(charge.s(order_id, "4111", {}))
        run.update_status(phase="refusing", progress=0.5)
        await refuse.s()


approval = promise("approval", bool)


@workflow(name="seen.asked")
async def asked(run: Run) -> bool:
    run.update_status(phase="asking", progress=0.5)
    return await approval
