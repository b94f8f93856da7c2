"""The stock: look, take, give back."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from canvas import step
from status.errors import TerminalError
from tasks import billing, warehouse
from tasks.domain import InventoryReservation, OrderLine, units_by_sku
from tasks.models import ProductRow, ReservationLineRow, ReservationRow, ReservationState
from tasks.once import add, derived_id, once, reading, undo_once


@step(name="inventory.check", queue="inventory")
def check(items: tuple[OrderLine, ...]) -> bool:
    """Whether all articles are known and in stock just now; `reserve` may still find them gone."""
    with reading() as session:
        return in_stock(session, items)


@step(name="inventory.reserve", queue="inventory")
def reserve(order_id: str, items: tuple[OrderLine, ...]) -> InventoryReservation:
    """Take all units from the stock, or none.

    Raises:
        TerminalError: There are not enough, or the order has a reservation already (code 409).
    """
    return once(InventoryReservation, lambda session, key: take(session, key, order_id, items))


@step(name="inventory.release", queue="inventory")
def release(order_id: str) -> None:
    """Undo `reserve`, with what was built on it: units back to the stock, parcel unpacked, invoice void."""
    undo_once(lambda session, r: give_back(session, order_id, r.undoes))


def in_stock(session: Session, items: tuple[OrderLine, ...]) -> bool:
    """Whether the stock holds all of `items`."""
    wanted = units_by_sku(items)
    query = select(ProductRow.sku, ProductRow.units_in_stock).where(ProductRow.sku.in_(wanted))
    stock = dict(session.execute(query).all())
    return all(stock.get(sku, 0) >= units for sku, units in wanted.items())


def take(session: Session, key: str, order_id: str, items: tuple[OrderLine, ...]) -> InventoryReservation:
    """Write a reservation and take its units from the stock.

    Raises:
        TerminalError: Short of an article, or the order has a live reservation (code 409).
    """
    reservation_id = derived_id("rsv", key)
    add(
        session,
        ReservationRow(reservation_id=reservation_id, order_id=order_id, key=key),
        already=f"order {order_id} has a reservation already: it was placed by another run",
    )
    for sku, units in units_by_sku(items).items():
        # Compared and taken in one statement: of two orders for the last unit one finds no row.
        taken = session.scalar(
            update(ProductRow)
            .where(ProductRow.sku == sku, ProductRow.units_in_stock >= units)
            .values(units_in_stock=ProductRow.units_in_stock - units)
            .returning(ProductRow.sku)
        )
        if taken is None:
            raise TerminalError(f"short of {sku}: order {order_id} wants {units}", code=409)
        session.add(ReservationLineRow(reservation_id=reservation_id, sku=sku, quantity=units))
    session.flush()
    return InventoryReservation(reservation_id, order_id)


def give_back(session: Session, order_id: str, undoes: str | None) -> None:
    """Release the reservation that the undone step made; without such a step, the order's live one.

    By the step's key and not by the order: an order placed twice has its second reservation refused, and
    the undo of that must not release the first.
    """
    mine = ReservationRow.order_id == order_id if undoes is None else ReservationRow.key == undoes
    released = session.scalar(
        update(ReservationRow)
        .where(mine, ReservationRow.state != ReservationState.RELEASED)
        .values(state=ReservationState.RELEASED)
        .returning(ReservationRow.reservation_id)
    )
    if released is None:
        return
    lines = select(ReservationLineRow).where(ReservationLineRow.reservation_id == released)
    for line in session.scalars(lines.order_by(ReservationLineRow.sku)).all():
        session.execute(
            update(ProductRow)
            .where(ProductRow.sku == line.sku)
            .values(units_in_stock=ProductRow.units_in_stock + line.quantity)
        )
    warehouse.unpack(session, released)
    billing.void(session, released)
