"""Invoices."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from canvas import current_step, step
from status.errors import TerminalError
from tasks.domain import Invoice, OrderLine, Provider
from tasks.models import InvoiceRow, InvoiceState, ReservationRow, ReservationState
from tasks.once import add, derived_id, earlier, once
from tasks.rehearsal import play


@step(name="billing.generate_invoice", queue="billing")
def generate_invoice(order_id: str, items: tuple[OrderLine, ...], total: Decimal) -> Invoice:
    """Write the bill.

    There is no undo of its own: releasing the order's reservation voids it, and an order without a
    reservation can't be billed.

    Raises:
        TerminalError: The order has no reservation, or a bill already (code 409).
    """
    del items  # the bill of the local shop has no lines
    done = earlier(Invoice)
    if done is not None:
        return done
    play(Provider.BILLING, current_step())
    return once(Invoice, lambda session, key: issue(session, key, order_id, total))


def issue(session: Session, key: str, order_id: str, total: Decimal) -> Invoice:
    """Write an invoice for the order's live reservation.

    Raises:
        TerminalError: There is none, or it has an invoice already (code 409).
    """
    live = select(ReservationRow.reservation_id).where(
        ReservationRow.order_id == order_id, ReservationRow.state != ReservationState.RELEASED
    )
    # Locked: a release at the same moment either sees the new invoice, or is seen here.
    reservation_id = session.scalar(live.with_for_update())
    if reservation_id is None:
        raise TerminalError(f"order {order_id} has no reservation: it can't be billed", code=409)
    invoice_id = derived_id("inv", key)
    invoice = InvoiceRow(invoice_id=invoice_id, reservation_id=reservation_id, order_id=order_id, total=total, key=key)
    add(session, invoice, already=f"order {order_id} has an invoice already")
    return Invoice(invoice_id, order_id, total)


def void(session: Session, reservation_id: str) -> None:
    """Undo `issue`: the bill of this reservation does not hold, if there is one."""
    session.execute(
        update(InvoiceRow).where(InvoiceRow.reservation_id == reservation_id).values(state=InvoiceState.VOID)
    )
