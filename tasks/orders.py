"""The order: validate, reserve, pay, fulfil, notify. What was done is undone when a later part fails."""

from __future__ import annotations

from canvas import Run, StepFailed, TerminalError, fan_out, fan_out_fail, race, workflow
from saga import Saga
from tasks import billing, fraud, inventory, notification, payment, rehearsal, shipping, warehouse
from tasks.domain import Fulfillment, InventoryReservation, Order, OrderResult, Payment, Slot


@workflow(name="orders.complete")
async def complete_order(run: Run, order: Order) -> OrderResult:
    """Bring one order to its end.

    Raises:
        TerminalError: The order was refused by a check (code 400).
    """
    if order.simulate:
        await rehearsal.rehearse.s(order.simulate)
    async with Saga(run, "order-saga") as saga:
        run.update_status(phase="started", progress=0.0)
        await validate(order)

        run.update_status(phase="validation", progress=0.2)
        reservation, slot = await reserve(saga, order)

        run.update_status(phase="reservation", progress=0.4)
        paid = await pay(saga, order)

        run.update_status(phase="payment", progress=0.6)
        fulfillment = await fulfill(order, reservation, slot)

    run.update_status(phase="fulfillment", progress=0.8)
    await notify(run, order, fulfillment)
    run.update_status(phase="completed", progress=1.0)
    return OrderResult(order.order_id, "completed", paid, fulfillment)


async def validate(order: Order) -> None:
    """All four checks must pass; the first that fails ends it."""
    try:
        checks = await fan_out_fail(
            inventory.check.s(order.items),
            payment.validate.s(order.payment_method),
            shipping.check_availability.s(order.shipping_address),
            fraud.check.s(order.customer_id, order.total),
        )
    except StepFailed as failed:
        raise TerminalError(f"order validation failed: {failed}", code=400) from failed
    for i, valid in enumerate(checks):
        if not valid:
            raise TerminalError(f"validation {i} failed", code=400)


async def reserve(saga: Saga, order: Order) -> tuple[InventoryReservation, Slot]:
    """Units from the stock and a place in a van."""
    reservation = await (
        saga.safe_step("reserve-inventory")
        .with_compensation(inventory.release.s(order.order_id))
        .execute(inventory.reserve.s(order.order_id, order.items))
    )
    slot = await (
        saga.safe_step("reserve-shipping")
        .with_compensation(shipping.cancel_slot)
        .execute(shipping.reserve_slot.s(order.order_id, order.shipping_address, order.items))
    )
    return reservation, slot


async def pay(saga: Saga, order: Order) -> Payment:
    """The primary provider has a tenth of a second before the backup is asked too."""
    winner = await (
        saga.safe_step("charge")
        .with_compensation(payment.refund)  # of each charge that went through, or may have
        .execute(
            race(
                payment.charge_stripe.s(order.order_id, order.total).named("payment-stripe"),
                payment.charge_paypal.s(order.order_id, order.total).named("payment-paypal").after(0.1),
            )
        )
    )
    return winner.value


async def fulfill(order: Order, reservation: InventoryReservation, slot: Slot) -> Fulfillment:
    """Parcel, label and invoice; undone by the undos of what they stand on."""
    picked, label, invoice = await fan_out_fail(
        warehouse.pick_items.s(reservation.reservation_id, order.items),
        shipping.generate_label.s(slot.slot_id, order.shipping_address),
        billing.generate_invoice.s(order.order_id, order.items, order.total),
    )
    return Fulfillment(picked, label, invoice)


async def notify(run: Run, order: Order, fulfillment: Fulfillment) -> None:
    """Tell the customer in three ways; none of them can fail the order."""
    sent = await fan_out(
        notification.send_email.s(order.email, "Order Confirmed", notification.format_email(fulfillment)),
        notification.send_sms.s(order.phone, "confirmed"),
        notification.send_push.s(order.customer_id, "Order Confirmed", "Your order has been confirmed"),
    )
    if sent.failed:
        run.log.warning("some notifications failed", failed=sent.failed, succeeded=sent.succeeded)
