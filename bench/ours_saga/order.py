"""The same 14 steps, with more asked of them: undos logged in SQL before each action, and a race to pay.

The race's second provider starts after 100 ms only, and the first has answered by then: it does not run.
"""

from __future__ import annotations

from bench.orders import Json
from bench.ours import order as plain
from bench.ours.order import (
    cancel_shipping,
    capture,
    charge_stripe,
    check_fraud,
    check_inventory,
    check_payment,
    check_shipping,
    invoice,
    label,
    pick,
    refund,
    release_inventory,
    reserve_inventory,
    reserve_shipping,
    send_email,
    send_push,
    send_sms,
)
from canvas import Run, TerminalError, fan_out, fan_out_fail, race, step, workflow
from saga import Saga


@step(name="ours_saga.charge_paypal")
def charge_paypal(order_id: str, total: float) -> str:
    return f"pp-{order_id}-{total}"


@workflow(name="ours_saga.complete_order")
async def complete_order(run: Run, order: Json) -> Json:
    order_id: str = order["id"]
    async with Saga(run, "bench") as saga:
        run.update_status(phase="started", progress=0.0)
        checks = await fan_out_fail(
            check_inventory.s(order), check_payment.s(order), check_shipping.s(order), check_fraud.s(order)
        )
        if not all(checks):
            raise TerminalError("the order is not valid", code=400)

        run.update_status(phase="validation", progress=0.2)
        reservation = await (
            saga.safe_step("reserve-inventory")
            .with_compensation(release_inventory)
            .execute(reserve_inventory.s(order_id))
        )
        slot = await (
            saga.safe_step("reserve-shipping").with_compensation(cancel_shipping).execute(reserve_shipping.s(order_id))
        )
        run.update_status(phase="reservation", progress=0.4)
        charge = await pay(saga, order)
        run.update_status(phase="payment", progress=0.6)
        picked, labelled, invoiced = await fan_out_fail(pick.s(reservation), label.s(slot), invoice.s(charge))

    run.update_status(phase="fulfillment", progress=0.8)
    await fan_out(send_email.s(labelled), send_sms.s(order_id), send_push.s(order_id))
    run.update_status(phase="completed", progress=1.0)
    return {"id": order_id, "picked": picked, "label": labelled, "invoice": invoiced}


async def pay(saga: Saga, order: Json) -> str:
    winner = await (
        saga.safe_step("charge")
        .with_compensation(refund)
        .execute(
            race(
                charge_stripe.s(order["id"], order["total"]),
                charge_paypal.s(order["id"], order["total"]).after(0.1),
            )
        )
    )
    await capture.s(winner.value)
    return winner.value


class Side(plain.Side):
    """This side of the bench."""

    name = "ours_saga"
    workflow = complete_order
