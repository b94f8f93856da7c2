"""The same 14 steps and the same workflow text; only the steps say `local=True`."""

from __future__ import annotations

from typing import Any

from bench.orders import Json
from bench.ours import order as plain
from canvas import Run, StepFailed, TerminalError, fan_out, fan_out_fail, step, workflow


def local(of: Any) -> Any:
    """The step of `bench/ours` that does the same, run in its turn's process."""
    return step(name=of.name.replace("ours.", "ours_local."), local=True)(of.run)


check_inventory, check_payment = local(plain.check_inventory), local(plain.check_payment)
check_shipping, check_fraud = local(plain.check_shipping), local(plain.check_fraud)
reserve_inventory, release_inventory = local(plain.reserve_inventory), local(plain.release_inventory)
reserve_shipping, cancel_shipping = local(plain.reserve_shipping), local(plain.cancel_shipping)
charge_stripe, refund, capture = local(plain.charge_stripe), local(plain.refund), local(plain.capture)
pick, label, invoice = local(plain.pick), local(plain.label), local(plain.invoice)
send_email, send_sms, send_push = local(plain.send_email), local(plain.send_sms), local(plain.send_push)


@workflow(name="ours_local.complete_order")
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


class Side(plain.Side):
    """This side of the bench."""

    name = "ours_local"
    workflow = complete_order
