"""Each effect of the shop once; each undo for what was done, what was not, and what comes late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from saga.effects import Tombstoned
from shop import HOME, ITEMS, Shop
from status.errors import TerminalError
from tasks import billing, fraud, inventory, notification, payment, shipping, warehouse
from tasks.domain import Address, Fulfillment, Invoice, Label, OrderLine, Payment, PickResult, Slot
from tasks.models import (
    InvoiceRow,
    NotificationRow,
    PaymentRow,
    RefundRow,
    ReservationRow,
    ShipmentRow,
    SlotRow,
)

TOTAL = Decimal("22.50")


def lines(**units: int) -> tuple[OrderLine, ...]:
    return tuple(OrderLine(sku=sku, quantity=quantity) for sku, quantity in units.items())


def reserved(shop: Shop) -> str:
    return shop.run(inventory.reserve, "o1", ITEMS).reservation_id


def slot(shop: Shop) -> Slot:
    return shop.run(shipping.reserve_slot, "o1", HOME, ITEMS)


def fulfilled(shop: Shop) -> tuple[Slot, Payment]:
    """An order with everything done."""
    reservation_id, booked = reserved(shop), slot(shop)
    paid = shop.run(payment.charge_stripe, "o1", TOTAL)
    shop.run(warehouse.pick_items, reservation_id, ITEMS)
    shop.run(shipping.generate_label, booked.slot_id, HOME)
    shop.run(billing.generate_invoice, "o1", ITEMS, TOTAL)
    return booked, paid


# Checks


@pytest.mark.parametrize(
    ("items", "enough"),
    [
        (lines(A=5, B=3), True),
        (lines(A=6), False),
        (lines(A=3) + lines(A=3), False),
        (lines(nobody_knows=1), False),
    ],
)
def test_check_answers_and_never_raises(shop: Shop, items: tuple[OrderLine, ...], enough: bool) -> None:
    assert shop.run(inventory.check, items) is enough


@pytest.mark.parametrize(("method", "valid"), [("card", True), ("paypal", True), ("cheque", False), ("", False)])
def test_validate_knows_the_methods(shop: Shop, method: str, valid: bool) -> None:
    assert shop.run(payment.validate, method) is valid


@pytest.mark.parametrize(("country", "served"), [("Ireland", True), ("Atlantis", False), ("ANTARCTICA", False)])
def test_availability_is_by_country(shop: Shop, country: str, served: bool) -> None:
    address = Address(name="Ada", street="Lane 1", city="Elm", country=country)

    assert shop.run(shipping.check_availability, address) is served


@pytest.mark.parametrize(
    ("customer", "total", "allowed"),
    [("ADA", "50000.00", True), ("ADA", "50000.01", False), ("MALLORY", "1.00", False)],
)
def test_fraud_is_by_customer_and_amount(shop: Shop, customer: str, total: str, allowed: bool) -> None:
    assert shop.run(fraud.check, customer, Decimal(total)) is allowed


# The way forward


def test_an_order_that_goes_well_leaves_what_must_hold(shop: Shop) -> None:
    fulfilled(shop)

    assert shop.broken(completed=True) == []
    assert shop.stock() == {"A": 3, "B": 2}


def test_reserve_takes_all_lines_or_none(shop: Shop) -> None:
    with pytest.raises(TerminalError, match="short of B: order o1 wants 4") as raised:
        shop.run(inventory.reserve, "o1", lines(A=2, B=4))

    assert raised.value.code == 409
    assert shop.stock() == {"A": 5, "B": 3}
    assert shop.rows(ReservationRow) == 0


def test_reserve_of_an_unknown_sku_is_short_of_it(shop: Shop) -> None:
    with pytest.raises(TerminalError, match="short of Z"):
        shop.run(inventory.reserve, "o1", lines(Z=1))


def test_the_last_units_go_to_one_of_many(shop: Shop) -> None:
    together = threading.Barrier(6)

    def want(n: int) -> bool:
        together.wait(30)
        try:
            shop.run(inventory.reserve, f"o{n}", lines(A=2), run_id=f"r{n}")
        except TerminalError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(want, range(6)))

    assert sum(won) == 2
    assert shop.stock()["A"] == 1


Twice = Callable[[Shop], Any]


@pytest.mark.parametrize(
    ("table", "act"),
    [
        (ReservationRow, lambda shop: shop.run(inventory.reserve, "o1", ITEMS)),
        (PaymentRow, lambda shop: shop.run(payment.charge_stripe, "o1", TOTAL)),
        (PaymentRow, lambda shop: shop.run(payment.charge_paypal, "o1", TOTAL)),
        (SlotRow, slot),
        (ShipmentRow, lambda shop: shop.run(warehouse.pick_items, reserved(shop), ITEMS)),
        (InvoiceRow, lambda shop: reserved(shop) and shop.run(billing.generate_invoice, "o1", ITEMS, TOTAL)),
        (SlotRow, lambda shop: shop.run(shipping.generate_label, slot(shop).slot_id, HOME)),
        (NotificationRow, lambda shop: shop.run(notification.send_email, "a@example.org", "Hello", "Ada")),
        (NotificationRow, lambda shop: shop.run(notification.send_sms, "123", "Hello")),
        (NotificationRow, lambda shop: shop.run(notification.send_push, "ADA", "Hello", "Ada")),
    ],
)
def test_a_step_that_runs_twice_changes_nothing_and_says_the_same(shop: Shop, table: Any, act: Twice) -> None:
    first = act(shop)
    stock = shop.stock()

    assert act(shop) == first
    assert shop.stock() == stock
    assert shop.rows(table) == 1


def test_an_order_placed_by_two_runs_is_reserved_once(shop: Shop) -> None:
    reserved(shop)

    with pytest.raises(TerminalError, match="order o1 has a reservation already: it was placed by another run"):
        shop.run(inventory.reserve, "o1", ITEMS, run_id="r2")
    assert shop.stock() == {"A": 3, "B": 2}


def test_the_second_run_s_undo_leaves_the_first_alone(shop: Shop) -> None:
    reserved(shop)

    shop.run(inventory.release, "o1", run_id="r2", undoes="r2/inventory.reserve")

    assert shop.stock() == {"A": 3, "B": 2}


@pytest.mark.parametrize("items", [lines(A=2), lines(A=2, B=2)])
def test_only_what_was_reserved_can_be_packed(shop: Shop, items: tuple[OrderLine, ...]) -> None:
    reservation_id = reserved(shop)

    with pytest.raises(TerminalError, match="holds"):
        shop.run(warehouse.pick_items, reservation_id, items)
    assert shop.rows(ReservationRow, state="open") == 1


# The way back


def test_an_order_undone_after_payment_leaves_nothing(shop: Shop) -> None:
    booked, paid = fulfilled(shop)

    shop.run(payment.refund, paid, undoes="r1/payment.charge_stripe")
    shop.run(shipping.cancel_slot, booked, undoes="r1/shipping.reserve_slot")
    shop.run(inventory.release, "o1", undoes="r1/inventory.reserve")

    assert shop.broken(completed=False) == []
    assert shop.stock() == {"A": 5, "B": 3}
    assert shop.rows(RefundRow, amount=TOTAL) == 1


@pytest.mark.parametrize("known", [True, False])
def test_undos_find_what_was_done_even_if_its_value_is_unknown(shop: Shop, known: bool) -> None:
    booked, paid = fulfilled(shop)

    for _ in range(2):
        shop.run(payment.refund, paid if known else None, undoes="r1/payment.charge_stripe")
        shop.run(shipping.cancel_slot, booked if known else None, undoes="r1/shipping.reserve_slot")
        shop.run(inventory.release, "o1", undoes="r1/inventory.reserve")

    assert shop.broken(completed=False) == []


def test_undos_work_without_a_saga_too(shop: Shop) -> None:
    booked, paid = fulfilled(shop)

    shop.run(payment.refund, paid)
    shop.run(payment.refund, paid, key="another")
    shop.run(shipping.cancel_slot, booked)
    shop.run(inventory.release, "o1")

    assert shop.broken(completed=False) == []


def test_units_go_back_to_the_stock_once_whoever_releases_them(shop: Shop) -> None:
    reserved(shop)

    for key in ("first", "first", "second"):
        shop.run(inventory.release, "o1", key=key, undoes="r1/inventory.reserve")

    assert shop.stock() == {"A": 5, "B": 3}


def test_an_undo_that_is_run_again_leaves_what_came_after_it(shop: Shop) -> None:
    reserved(shop)
    shop.run(inventory.release, "o1")
    shop.run(inventory.reserve, "o1", ITEMS, run_id="r2")

    shop.run(inventory.release, "o1")

    assert shop.stock() == {"A": 3, "B": 2}


def test_undos_without_anything_to_undo_do_nothing(shop: Shop) -> None:
    shop.run(payment.refund, None)
    shop.run(shipping.cancel_slot, None)
    shop.run(inventory.release, "o1")

    assert shop.broken(completed=False) == []


@pytest.mark.parametrize(
    ("undo", "undone", "action"),
    [
        (payment.refund, None, (payment.charge_stripe, "o1", TOTAL)),
        (payment.refund, None, (payment.charge_paypal, "o1", TOTAL)),
        (shipping.cancel_slot, None, (shipping.reserve_slot, "o1", HOME, ITEMS)),
        (inventory.release, "o1", (inventory.reserve, "o1", ITEMS)),
    ],
)
def test_an_action_that_wakes_up_after_its_undo_has_no_effect(
    shop: Shop, undo: Any, undone: Any, action: tuple[Any, ...]
) -> None:
    shop.run(undo, undone, undoes=f"r1/{action[0].name}")

    with pytest.raises(Tombstoned):
        shop.run(*action)
    assert shop.broken(completed=False) == []
    assert (shop.rows(PaymentRow), shop.rows(SlotRow), shop.rows(ReservationRow)) == (0, 0, 0)


def test_fulfilling_an_order_that_was_undone_meanwhile_fails(shop: Shop) -> None:
    reservation_id, booked = reserved(shop), slot(shop)
    shop.run(shipping.cancel_slot, booked, undoes="r1/shipping.reserve_slot")
    shop.run(inventory.release, "o1", undoes="r1/inventory.reserve")

    with pytest.raises(TerminalError, match="is not open: it can't be packed"):
        shop.run(warehouse.pick_items, reservation_id, ITEMS)
    with pytest.raises(TerminalError, match="is cancelled or has a label"):
        shop.run(shipping.generate_label, booked.slot_id, HOME)
    with pytest.raises(TerminalError, match="has no reservation: it can't be billed"):
        shop.run(billing.generate_invoice, "o1", ITEMS, TOTAL)
    assert shop.broken(completed=False) == []


def test_a_charge_that_lost_its_race_and_succeeded_late_is_refunded(shop: Shop) -> None:
    fulfilled(shop)
    late = shop.run(payment.charge_paypal, "o1", TOTAL)

    assert shop.broken(completed=True) == ["order o1: 45.00 was kept, 22.50 is due"]
    shop.run(payment.refund, late, undoes="r1/payment.charge_paypal")

    assert shop.broken(completed=True) == []


def test_an_order_can_be_placed_again_after_it_was_undone(shop: Shop) -> None:
    reserved(shop)
    shop.run(inventory.release, "o1", undoes="r1/inventory.reserve")

    shop.run(inventory.reserve, "o1", ITEMS, run_id="r2")

    assert shop.stock() == {"A": 3, "B": 2}


def test_the_mail_tells_what_was_done() -> None:
    done = Fulfillment(PickResult("s1", 3), Label("slot", "TRK-1"), Invoice("inv-1", "o1", TOTAL))

    text = notification.format_email(done)
    assert all(part in text for part in ("o1", "3 units", "TRK-1", "inv-1", "22.50"))
