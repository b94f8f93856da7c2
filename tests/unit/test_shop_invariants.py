"""Each invariant: seen when it is broken."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from shop import HOME, ITEMS, Shop
from tasks import billing, inventory, payment, shipping, warehouse
from tasks.models import Cents, InvoiceRow, PaymentRow, ProductRow, ShipmentRow, SlotRow

TOTAL = Decimal("22.50")


@pytest.fixture
def done(shop: Shop) -> Shop:
    """A shop with one completed order."""
    reservation = shop.run(inventory.reserve, "o1", ITEMS)
    slot = shop.run(shipping.reserve_slot, "o1", HOME, ITEMS)
    shop.run(payment.charge_stripe, "o1", TOTAL)
    shop.run(warehouse.pick_items, reservation.reservation_id, ITEMS)
    shop.run(shipping.generate_label, slot.slot_id, HOME)
    shop.run(billing.generate_invoice, "o1", ITEMS, TOTAL)
    return shop


def test_they_hold_when_all_is_well(done: Shop) -> None:
    assert done.broken(completed=True) == []


def test_an_order_that_did_not_complete_must_leave_nothing(done: Shop) -> None:
    assert done.broken(completed=False) == [
        "order o1: 22.50 was kept, 0 is due",
        "order o1: 1 shipments, 0 due",
        "order o1: 1 labels, 0 due",
        "order o1: 1 invoices, 0 due",
    ]


def test_an_order_that_completed_must_have_all(shop: Shop) -> None:
    assert shop.broken(completed=True) == [
        "order o1: 0 was kept, 22.50 is due",
        "order o1: 0 shipments, 1 due",
        "order o1: 0 labels, 1 due",
        "order o1: 0 invoices, 1 due",
    ]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (update(ProductRow).where(ProductRow.sku == "A").values(units_in_stock=4), "A: 5 in stock before, but 4 left"),
        (update(ProductRow).where(ProductRow.sku == "A").values(units_in_stock=2), "A: 5 in stock before, but 2 left"),
        (update(PaymentRow).values(amount=Decimal("22.49")), "order o1: 22.49 was kept, 22.50 is due"),
        (update(ShipmentRow).values(state="returned"), "order o1: 0 shipments, 1 due"),
        (update(InvoiceRow).values(state="void"), "order o1: 0 invoices, 1 due"),
        (update(SlotRow).values(state="reserved"), "is left open"),
    ],
)
def test_each_is_seen_when_it_is_broken(done: Shop, spoil: Callable[..., object], said: str) -> None:
    with Session(done.engine) as session, session.begin():
        session.execute(spoil)  # type: ignore[call-overload]

    assert any(said in violation for violation in done.broken(completed=True))


def test_a_reservation_that_is_left_open_is_seen(shop: Shop) -> None:
    shop.run(inventory.reserve, "o1", ITEMS)

    assert any("is left open" in violation for violation in shop.broken(completed=False))


def test_other_orders_in_the_same_database_do_no_harm(done: Shop) -> None:
    done.run(payment.charge_stripe, "o9", TOTAL, run_id="r9")
    done.run(shipping.reserve_slot, "o9", HOME, ITEMS, run_id="r9")

    assert done.broken(completed=True) == []


def test_money_has_no_fraction_of_a_cent() -> None:
    with pytest.raises(ValueError, match=r"1\.005 has a fraction of a cent"):
        Cents().process_bind_param(Decimal("1.005"), None)  # type: ignore[arg-type]
