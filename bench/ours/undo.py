"""The order of `bench/ours_saga`, of which the last step of fulfilment fails: the saga undoes the rest."""

from __future__ import annotations

from typing import Any, cast

import redis
from celery import current_app

from bench.orders import Json, order_of
from bench.ours.order import (
    cancel_shipping,
    capture,
    charge_stripe,
    check_fraud,
    check_inventory,
    check_payment,
    check_shipping,
    label,
    pick,
    refund,
    reserve_inventory,
    reserve_shipping,
)
from canvas import Run, RunFailed, RunHandle, TerminalError, fan_out_fail, step, workflow
from saga import Saga
from status import State

COUNT = "bench:undone:ours"


@step(name="ours.invoice_fails")
def invoice_fails(charge: str) -> str:
    raise TerminalError(f"no invoice for {charge}")


@step(name="ours.release_counted")
def release_counted(reservation: str | None) -> None:
    """The last undo: counted, so that it is known how often orders are undone."""
    client: redis.Redis = cast("Any", current_app.backend).client
    client.incr(COUNT)


@workflow(name="ours.failing_order")
async def failing_order(run: Run, order: Json) -> None:
    order_id: str = order["id"]
    async with Saga(run, "bench") as saga:
        run.update_status(phase="started", progress=0.0)
        await fan_out_fail(
            check_inventory.s(order), check_payment.s(order), check_shipping.s(order), check_fraud.s(order)
        )
        run.update_status(phase="validation", progress=0.2)
        reservation = await (
            saga.safe_step("reserve-inventory")
            .with_compensation(release_counted)
            .execute(reserve_inventory.s(order_id))
        )
        slot = await (
            saga.safe_step("reserve-shipping").with_compensation(cancel_shipping).execute(reserve_shipping.s(order_id))
        )
        run.update_status(phase="reservation", progress=0.4)
        charge = await (
            saga.safe_step("charge").with_compensation(refund).execute(charge_stripe.s(order_id, order["total"]))
        )
        await capture.s(charge)
        run.update_status(phase="payment", progress=0.6)
        await fan_out_fail(pick.s(reservation), label.s(slot), invoice_fails.s(charge))


class Side:
    """This side of the bench."""

    name, counter = "ours", COUNT

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self._handles: dict[str, RunHandle[None]] = {}

    def start(self, order_id: str) -> None:
        self._handles[order_id] = failing_order.s(order_of(order_id)).submit(run_id=order_id)

    def wait(self, order_id: str, timeout_s: float) -> bool:
        """Whether the order is undone within the time.

        Raises:
            RunFailed: It ended otherwise.
        """
        try:
            self._handles.pop(order_id).result(timeout_s=timeout_s)
        except TimeoutError:
            return False
        except RunFailed as failed:
            if failed.state is not State.COMPENSATED:
                raise
            return True
        raise RuntimeError(f"order {order_id} did not fail")
