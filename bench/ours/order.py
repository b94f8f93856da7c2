"""validate (4, fail fast) → reserve → slot → charge (a race) → capture → fulfil (3, fail fast) → notify (3).

14 steps run, the same as in `bench/stock`: the race's second provider starts after 100 ms only, and
the first has answered by then. What stock canvas does in chord bodies the workflow's own text does here. It
does more than the stock order beside that: a saga log in SQL, phases, a race, and every rule of durability.
"""

from __future__ import annotations

from bench.orders import Json, order_of
from canvas import Run, RunHandle, TerminalError, fan_out, fan_out_fail, race, step, workflow
from saga import Saga


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


@step(name="ours.charge_paypal")
def charge_paypal(order_id: str, total: float) -> str:
    return f"pp-{order_id}-{total}"


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


class Side:
    """This side of the bench."""

    name = "ours"

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self._handles: dict[str, RunHandle[Json]] = {}

    def start(self, order_id: str) -> None:
        self._handles[order_id] = complete_order.s(order_of(order_id)).submit(run_id=order_id)

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
