"""validate (4, fail fast) → reserve → slot → charge → capture → fulfil (3, fail fast) → notify (3).

The 14 steps of `bench/stock`. What stock canvas does in chord bodies the workflow's own text does here, and what
its errback would do stands in the `except`. Phases and every rule of durability are on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.orders import Json, order_of
from canvas import Run, RunHandle, StepFailed, TerminalError, Workflow, fan_out, fan_out_fail, step, workflow
from status import State, here


@step(name="ours.check_inventory")
def check_inventory(order: Json) -> bool:
    return bool(order["sku"])


@step(name="ours.check_payment")
def check_payment(order: Json) -> bool:
    return bool(order["total"])


@step(name="ours.check_shipping")
def check_shipping(order: Json) -> bool:
    return bool(order["address"])


@step(name="ours.check_fraud")
def check_fraud(order: Json) -> bool:
    return bool(order["customer"])


@step(name="ours.reserve_inventory")
def reserve_inventory(order_id: str) -> str:
    return f"res-{order_id}"


@step(name="ours.release_inventory")
def release_inventory(reservation: str | None) -> None:
    """An undo; no order of the bench needs it."""


@step(name="ours.reserve_shipping")
def reserve_shipping(order_id: str) -> str:
    return f"slot-{order_id}"


@step(name="ours.cancel_shipping")
def cancel_shipping(slot: str | None) -> None:
    """An undo; no order of the bench needs it."""


@step(name="ours.charge_stripe")
def charge_stripe(order_id: str, total: float) -> str:
    return f"ch-{order_id}-{total}"


@step(name="ours.refund")
def refund(charge: str | None) -> None:
    """An undo; no order of the bench needs it."""


@step(name="ours.capture")
def capture(charge: str) -> bool:
    return bool(charge)


@step(name="ours.pick")
def pick(reservation: str) -> str:
    return reservation


@step(name="ours.label")
def label(slot: str) -> str:
    return slot


@step(name="ours.invoice")
def invoice(charge: str) -> str:
    return charge


@step(name="ours.send_email")
def send_email(label: str) -> bool:
    return bool(label)


@step(name="ours.send_sms")
def send_sms(order_id: str) -> bool:
    return bool(order_id)


@step(name="ours.send_push")
def send_push(order_id: str) -> bool:
    return bool(order_id)


@workflow(name="ours.complete_order")
async def complete_order(run: Run, order: Json) -> Json:
    order_id: str = order["id"]
    reservation = slot = charge = None
    run.update_status(phase="started", progress=0.0)
    checks = await fan_out_fail(
        check_inventory.s(order), check_payment.s(order), check_shipping.s(order), check_fraud.s(order)
    )
    if not all(checks):
        raise TerminalError("the order is not valid", code=400)
    try:
        run.update_status(phase="validation", progress=0.2)
        reservation = await reserve_inventory.s(order_id)
        slot = await reserve_shipping.s(order_id)
        run.update_status(phase="reservation", progress=0.4)
        charge = await charge_stripe.s(order_id, order["total"])
        await capture.s(charge)
        run.update_status(phase="payment", progress=0.6)
        picked, labelled, invoiced = await fan_out_fail(pick.s(reservation), label.s(slot), invoice.s(charge))
    except StepFailed:
        await refund.s(charge)
        await cancel_shipping.s(slot)
        await release_inventory.s(reservation)
        raise
    run.update_status(phase="fulfillment", progress=0.8)
    await fan_out(send_email.s(labelled), send_sms.s(order_id), send_push.s(order_id))
    run.update_status(phase="completed", progress=1.0)
    return {"id": order_id, "picked": picked, "label": labelled, "invoice": invoiced}


class Side:
    """This side of the bench."""

    name = "ours"
    workflow: Workflow[Any, Json] = complete_order

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self._handles: dict[str, RunHandle[Json]] = {}

    def start(self, order_id: str) -> None:
        self._handles[order_id] = self.workflow.s(order_of(order_id)).submit(run_id=order_id)

    def wait(self, order_id: str, timeout_s: float) -> bool:
        """Whether the order is completed within the time.

        Raises:
            RunFailed: It ended otherwise.
        """
        try:
            self._handles.pop(order_id).result(timeout_s=timeout_s)
        except TimeoutError:
            return False
        return True

    def completed(self, order_ids: Sequence[str]) -> int:
        """How many of these orders are completed by now."""
        reader = here.reader()
        pipe = reader.redis.pipeline(transaction=False)
        for order_id in order_ids:
            pipe.hget(reader.keys.run(order_id), "state")
        return pipe.execute().count(State.COMPLETED)
