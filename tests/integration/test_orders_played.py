"""The order, without its services: what it asks of them, in which order, and what it undoes."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from canvas import RunCancelled, RunFailed
from canvas.testing import Fake, PlayedRun, Workflows
from status import State
from tasks import app, billing, fraud, inventory, notification, orders, payment, shipping, warehouse
from tasks.domain import (
    Address,
    InventoryReservation,
    Invoice,
    Label,
    Order,
    OrderLine,
    Payment,
    PickResult,
    Slot,
)

ORDER = Order(
    order_id="7",
    customer_id="ada",
    items=(OrderLine(sku="tin", quantity=2),),
    total=Decimal(20),
    shipping_address=Address(name="Ada", street="Lane 1", city="Elm", country="Ireland"),
)


def paid(provider: str) -> Any:
    """What a provider answers."""
    return lambda order_id, total: Payment(
        payment_id=f"pay-{provider}", order_id=order_id, provider=provider, amount=total, transaction_id="t"
    )


ALL_WELL = {
    inventory.check: True,
    payment.validate: True,
    shipping.check_availability: True,
    fraud.check: True,
    inventory.reserve: InventoryReservation(reservation_id="res", order_id="7"),
    inventory.release: None,
    shipping.reserve_slot: Slot(slot_id="slot", order_id="7"),
    shipping.cancel_slot: None,
    payment.charge_stripe: paid("stripe"),
    payment.charge_paypal: paid("paypal"),
    payment.refund: None,
    warehouse.pick_items: PickResult(shipment_id="ship", units=2),
    shipping.generate_label: Label(slot_id="slot", tracking_number="track"),
    billing.generate_invoice: Invoice(invoice_id="inv", order_id="7", total=Decimal(20)),
    notification.send_email: "sent",
    notification.send_sms: "sent",
    notification.send_push: "sent",
}


@pytest.fixture
def flows() -> Iterator[Workflows]:
    with Workflows(app, fakes=ALL_WELL, strict=True) as made:
        yield made


def start(flows: Workflows, **fakes: Any) -> PlayedRun[Any]:
    """An order in which some services do something else; `__` stands for the dot in the step's name."""
    named = {name.replace("__", "."): fake for name, fake in fakes.items()}
    return flows.start(orders.complete_order.s(ORDER), fakes=named)


def test_an_order_goes_through_its_phases(flows):
    run = start(flows)

    assert run.result().payment.provider == "stripe"
    assert run.phases == ["started", "validation", "reservation", "payment", "fulfillment", "completed"]
    assert run.calls(warehouse.pick_items) == [("res", ORDER.items)]
    assert run.undone == []
    assert not run.attempts(payment.charge_paypal), "stripe was quick: nobody else is asked"


def test_an_order_that_a_check_refuses_reserves_nothing(flows):
    run = start(flows, fraud__check=False)

    with pytest.raises(RunFailed, match="validation 3 failed") as failed:
        run.result()
    assert failed.value.code == 400
    assert not run.attempts(inventory.reserve)


def test_the_backup_is_asked_after_a_tenth_of_a_second_and_the_late_charge_is_refunded(flows):
    slow = Fake.calls(paid("stripe"), takes_s=5)
    run = start(flows, payment__charge_stripe=slow)

    assert run.result().payment.provider == "paypal"
    run.advance(seconds=10)
    assert [seen.at_s for seen in run.attempts(payment.charge_paypal)] == [0.1]
    assert [refunded.provider for (refunded,) in run.calls(payment.refund)] == ["stripe"]


def test_what_was_done_is_undone_newest_first(flows):
    run = start(flows, warehouse__pick_items=Fake.fails("aisle closed", code=503))

    assert run.end() is State.COMPENSATED
    assert run.undone == ["charge payment-stripe", "reserve-shipping", "reserve-inventory"]
    run.assert_in_order("step.failed warehouse.pick_items", "saga.undoing charge payment-stripe", "run.compensated")


def test_notifications_never_fail_an_order(flows):
    no_line = ConnectionError("no line")
    run = start(
        flows, notification__send_email=no_line, notification__send_sms=no_line, notification__send_push=no_line
    )

    assert run.result().status == "completed"


def test_an_order_that_is_cancelled_while_it_is_paid_gives_everything_back(flows):
    run = start(flows, payment__charge_stripe=Fake.hangs(), payment__charge_paypal=Fake.hangs())
    flows.later(lambda: run.cancel("changed my mind"), seconds=30)

    with pytest.raises(RunCancelled, match="changed my mind"):
        run.result()
    assert run.calls(inventory.release) == [("7",)]


@pytest.mark.parametrize("step", [inventory.reserve, "payment-stripe", billing.generate_invoice])
@pytest.mark.parametrize("when", ["before finish", "after finish", "after open_join", "before publish"])
def test_an_order_outlives_who_works_on_it(flows, when, step):
    flows.crash(when, step=step)  # also in the turn that follows the step
    run = start(flows)

    assert run.result().status == "completed"
