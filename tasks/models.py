"""The shop's tables. Unique constraints, and not care alone, keep every effect to one.

Each row that a step writes carries the step's idempotency key. "One live … an order" is a unique index
over the rows that are not undone, so that an order that is run twice can't have two of anything.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from saga import schema


class Cents(TypeDecorator[Decimal]):
    """Money as whole cents: SQLite has no decimals, and floats do not add up."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Decimal to cents; a fraction of a cent is a ValueError."""
        del dialect
        if value is None:
            return None
        cents = value.scaleb(2)
        if cents != cents.to_integral_value():
            raise ValueError(f"{value} has a fraction of a cent: round it first")
        return int(cents)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        """Cents to Decimal, also of a sum (which PostgreSQL gives as a decimal number)."""
        del dialect
        return None if value is None else Decimal(int(value)).scaleb(-2)


def _now() -> datetime:
    return datetime.now(UTC)


def _live(name: str, column: str, condition: str) -> Index:
    """A unique index over the rows for which `condition` holds."""
    where = text(condition)
    return Index(name, column, unique=True, sqlite_where=where, postgresql_where=where)


class Base(DeclarativeBase):
    """All tables of the shop."""


class Keyed:
    """A row that one step wrote: its idempotency key allows no second."""

    key: Mapped[str] = mapped_column(String(300), unique=True)
    created_at: Mapped[datetime] = mapped_column(schema.Utc, default=_now)


class ProductRow(Base):
    """An article. Its stock can't go below nothing, whoever takes from it."""

    __tablename__ = "shop_products"
    __table_args__ = (CheckConstraint("units_in_stock >= 0", name="ck_shop_products_stock"),)

    sku: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    unit_price: Mapped[Decimal] = mapped_column(Cents)
    units_in_stock: Mapped[int]
    discontinued: Mapped[bool] = mapped_column(default=False)


class ReservationState(StrEnum):
    """Where reserved units are."""

    OPEN = "open"  #: taken from the stock, still on the shelf
    SHIPPED = "shipped"  #: in a parcel
    RELEASED = "released"  #: back in the stock; final


class ReservationRow(Keyed, Base):
    """Units that belong to an order."""

    __tablename__ = "shop_reservations"
    __table_args__ = (_live("uq_shop_reservations_live", "order_id", "state <> 'released'"),)

    reservation_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    order_id: Mapped[str] = mapped_column(String(200), index=True)
    state: Mapped[str] = mapped_column(String(20), default=ReservationState.OPEN)


class ReservationLineRow(Base):
    """So many units of one article in a reservation."""

    __tablename__ = "shop_reservation_lines"

    reservation_id: Mapped[str] = mapped_column(ForeignKey(ReservationRow.reservation_id), primary_key=True)
    sku: Mapped[str] = mapped_column(ForeignKey(ProductRow.sku), primary_key=True)
    quantity: Mapped[int]


class SlotState(StrEnum):
    """What became of a place in the van."""

    RESERVED = "reserved"
    LABELLED = "labelled"  #: a parcel with this label goes
    CANCELLED = "cancelled"  #: final


class SlotRow(Keyed, Base):
    """A place in a carrier's van, and the label of the parcel that takes it."""

    __tablename__ = "shop_slots"
    __table_args__ = (_live("uq_shop_slots_live", "order_id", "state <> 'cancelled'"),)

    slot_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    order_id: Mapped[str] = mapped_column(String(200), index=True)
    city: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20), default=SlotState.RESERVED)
    tracking_number: Mapped[str | None] = mapped_column(String(60), unique=True)


class PaymentRow(Keyed, Base):
    """Money captured. A race of providers may capture twice; the late one is refunded."""

    __tablename__ = "shop_payments"

    payment_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    order_id: Mapped[str] = mapped_column(String(200), index=True)
    provider: Mapped[str] = mapped_column(String(20))
    amount: Mapped[Decimal] = mapped_column(Cents)
    transaction_id: Mapped[str] = mapped_column(String(100))

    __table_args__ = (UniqueConstraint("provider", "transaction_id"),)


class RefundRow(Keyed, Base):
    """Money given back: at most once a payment, and all of it."""

    __tablename__ = "shop_refunds"

    payment_id: Mapped[str] = mapped_column(ForeignKey(PaymentRow.payment_id), primary_key=True)
    order_id: Mapped[str] = mapped_column(String(200), index=True)
    amount: Mapped[Decimal] = mapped_column(Cents)


class ShipmentState(StrEnum):
    """Where a parcel is."""

    PACKED = "packed"
    RETURNED = "returned"  #: unpacked again, its units are back in the stock; final


class ShipmentRow(Keyed, Base):
    """The parcel of a reservation."""

    __tablename__ = "shop_shipments"
    __table_args__ = (_live("uq_shop_shipments_live", "order_id", "state <> 'returned'"),)

    shipment_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    reservation_id: Mapped[str] = mapped_column(ForeignKey(ReservationRow.reservation_id), unique=True)
    order_id: Mapped[str] = mapped_column(String(200), index=True)
    state: Mapped[str] = mapped_column(String(20), default=ShipmentState.PACKED)


class InvoiceState(StrEnum):
    """Whether a bill holds."""

    ISSUED = "issued"
    VOID = "void"  #: final


class InvoiceRow(Keyed, Base):
    """The bill of a reservation."""

    __tablename__ = "shop_invoices"
    __table_args__ = (_live("uq_shop_invoices_live", "order_id", "state <> 'void'"),)

    invoice_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    reservation_id: Mapped[str] = mapped_column(ForeignKey(ReservationRow.reservation_id), unique=True)
    order_id: Mapped[str] = mapped_column(String(200), index=True)
    total: Mapped[Decimal] = mapped_column(Cents)
    state: Mapped[str] = mapped_column(String(20), default=InvoiceState.ISSUED)


class NotificationRow(Keyed, Base):
    """The outbox: what was sent, or waits to be sent by whoever empties it."""

    __tablename__ = "shop_notifications"

    notification_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    channel: Mapped[str] = mapped_column(String(20))
    recipient: Mapped[str] = mapped_column(String(320))
    subject: Mapped[str] = mapped_column(String(500))
    body: Mapped[str] = mapped_column(Text)
    sent: Mapped[bool]


class RehearsalRow(Base):
    """What a local provider was told for one run: see `tasks.rehearsal`."""

    __tablename__ = "shop_rehearsals"

    run_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    provider: Mapped[str] = mapped_column(String(20), primary_key=True)
    behaviour: Mapped[str] = mapped_column(Text)


_ready: WeakSet[Engine] = WeakSet()
_making = threading.Lock()


def create_all(engine: Engine) -> None:
    """Create the shop's tables where they are missing; looked for once an engine, and safe to repeat."""
    with _making:
        if engine not in _ready:
            schema.create_all(engine, Base.metadata)
            _ready.add(engine)
