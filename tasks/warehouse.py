"""The shelves: a reservation becomes a parcel."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from canvas import current_step, step
from status.errors import TerminalError
from tasks.domain import OrderLine, PickResult, Provider, units_by_sku
from tasks.models import ReservationLineRow, ReservationRow, ReservationState, ShipmentRow, ShipmentState
from tasks.once import add, derived_id, earlier, once
from tasks.rehearsal import play


@step(name="warehouse.pick_items", queue="warehouse")
def pick_items(reservation_id: str, items: tuple[OrderLine, ...]) -> PickResult:
    """Pack what was reserved.

    There is no undo of its own: releasing the reservation unpacks the parcel, and a released one can't
    be packed any more.

    Raises:
        TerminalError: The reservation is not open, or holds other units (code 409).
    """
    done = earlier(PickResult)
    if done is not None:
        return done
    play(Provider.WAREHOUSE, current_step())
    return once(PickResult, lambda session, key: pack(session, key, reservation_id, items))


def pack(session: Session, key: str, reservation_id: str, items: tuple[OrderLine, ...]) -> PickResult:
    """Turn an open reservation into a shipment.

    Raises:
        TerminalError: The reservation is not open, or holds other units (code 409).
    """
    order_id = session.scalar(
        update(ReservationRow)
        .where(ReservationRow.reservation_id == reservation_id, ReservationRow.state == ReservationState.OPEN)
        .values(state=ReservationState.SHIPPED)
        .returning(ReservationRow.order_id)
    )
    if order_id is None:
        raise TerminalError(f"reservation {reservation_id} is not open: it can't be packed", code=409)
    lines = select(ReservationLineRow.sku, ReservationLineRow.quantity).where(
        ReservationLineRow.reservation_id == reservation_id
    )
    reserved = dict(session.execute(lines).all())
    wanted = units_by_sku(items)
    if reserved != wanted:
        raise TerminalError(f"reservation {reservation_id} holds {reserved}, not {wanted}", code=409)
    shipment_id = derived_id("shp", key)
    shipment = ShipmentRow(shipment_id=shipment_id, reservation_id=reservation_id, order_id=order_id, key=key)
    add(session, shipment, already=f"order {order_id} has a parcel already")
    return PickResult(shipment_id, sum(reserved.values()))


def unpack(session: Session, reservation_id: str) -> None:
    """Undo `pack`: the parcel comes back, if there is one."""
    session.execute(
        update(ShipmentRow).where(ShipmentRow.reservation_id == reservation_id).values(state=ShipmentState.RETURNED)
    )
