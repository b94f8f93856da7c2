"""What must hold when all orders have ended, whatever the order in which they ran and whatever failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from saga import database
from tasks.models import (
    InvoiceRow,
    InvoiceState,
    PaymentRow,
    ProductRow,
    RefundRow,
    ReservationLineRow,
    ReservationRow,
    ReservationState,
    ShipmentRow,
    ShipmentState,
    SlotRow,
    SlotState,
    create_all,
)


@dataclass(frozen=True)
class Outcome:
    """How an order ended.

    Attributes:
        completed: Whether its run completed; any other end is False.
    """

    order_id: str
    total: Decimal
    completed: bool


def check(engine: Engine, before: Mapping[str, int], outcomes: Iterable[Outcome]) -> list[str]:
    """What does not hold, one sentence each; an empty list: all is well.

    Looks at these orders alone, so a database that has seen others will do, if no other order changed the
    stock meanwhile.

    Args:
        before: The stock before the first of these orders, by SKU.
        outcomes: How each ended; all have ended.
    """
    create_all(engine)
    ended = {outcome.order_id: outcome for outcome in outcomes}
    with database.reading(engine) as connection, Session(connection) as session:
        return [
            *_stock(session, before, ended),
            *_money(session, ended),
            *_left_open(session, ended),
            *_papers(session, ended),
        ]


def _stock(session: Session, before: Mapping[str, int], ended: Mapping[str, Outcome]) -> list[str]:
    """Stock before = stock left + units shipped, for each product."""
    left = dict(session.execute(select(ProductRow.sku, ProductRow.units_in_stock)).all())
    packed = (
        select(ReservationLineRow.sku, ReservationLineRow.quantity, ShipmentRow.order_id)
        .join(ShipmentRow, ShipmentRow.reservation_id == ReservationLineRow.reservation_id)
        .where(ShipmentRow.state == ShipmentState.PACKED)
    )
    shipped: Counter[str] = Counter()
    for sku, quantity, order_id in session.execute(packed):
        if order_id in ended:
            shipped[sku] += quantity
    return [
        f"{sku}: {units} in stock before, but {left.get(sku, 0)} left and {shipped[sku]} shipped"
        for sku, units in before.items()
        if units != left.get(sku, 0) + shipped[sku]
    ]


def _money(session: Session, ended: Mapping[str, Outcome]) -> list[str]:
    """Captured - refunded = the total of a completed order, nothing of any other."""
    kept: dict[str, Decimal] = {}
    for sign, table in ((1, PaymentRow), (-1, RefundRow)):
        sums = select(table.order_id, func.sum(table.amount)).group_by(table.order_id)
        for order_id, amount in session.execute(sums):
            kept[order_id] = kept.get(order_id, Decimal(0)) + sign * amount
    wrong = []
    for order_id, outcome in ended.items():
        due = outcome.total if outcome.completed else Decimal(0)
        if kept.get(order_id, Decimal(0)) != due:
            wrong.append(f"order {order_id}: {kept.get(order_id, Decimal(0))} was kept, {due} is due")
    return wrong


def _left_open(session: Session, ended: Mapping[str, Outcome]) -> list[str]:
    """No reservation is left open, of units or of a van's place."""
    reservations = session.execute(
        select(ReservationRow.order_id, ReservationRow.reservation_id).where(
            ReservationRow.state == ReservationState.OPEN
        )
    )
    slots = session.execute(select(SlotRow.order_id, SlotRow.slot_id).where(SlotRow.state == SlotState.RESERVED))
    return [f"order {order_id}: {what} is left open" for order_id, what in [*reservations, *slots] if order_id in ended]


def _papers(session: Session, ended: Mapping[str, Outcome]) -> list[str]:
    """A completed order has one shipment, one label and one invoice, any other has none."""
    live = {
        "shipments": select(ShipmentRow.order_id).where(ShipmentRow.state == ShipmentState.PACKED),
        "labels": select(SlotRow.order_id).where(SlotRow.state == SlotState.LABELLED),
        "invoices": select(InvoiceRow.order_id).where(InvoiceRow.state == InvoiceState.ISSUED),
    }
    wrong = []
    for what, query in live.items():
        counts = Counter(session.scalars(query))
        for order_id, outcome in ended.items():
            if counts[order_id] != int(outcome.completed):
                wrong.append(f"order {order_id}: {counts[order_id]} {what}, {int(outcome.completed)} due")
    return wrong
