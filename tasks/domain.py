"""What the shop talks about: the payloads of its steps.

They are checked where they come in, by pydantic's `TypeAdapter`: from a line of a file, or as the argument
of a step. Money is `Decimal` with at most two decimal places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
# An order's id becomes a part of a run's id, whose characters are limited.
OrderId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:@-]+$", min_length=1, max_length=150)]

#: A misspelt optional field would be left out in silence; a misspelt `simulate` would simulate nothing.
_STRICT = ConfigDict(extra="forbid")


class Provider(StrEnum):
    """Who can be told to be slow or to fail: `Order.simulate` has them as keys.

    From KYC on they are the catalogue's; no order asks them.
    """

    STRIPE = "stripe"
    PAYPAL = "paypal"
    REFUNDS = "refunds"
    SLOTS = "slots"
    WAREHOUSE = "warehouse"
    CARRIER = "carrier"
    BILLING = "billing"
    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    KYC = "kyc"
    BLACKLIST = "blacklist"
    DETAILS = "details"
    PRICING = "pricing"
    UNITS = "units"
    REVIEWS = "reviews"
    RECOMMENDATIONS = "recommendations"
    CRM = "crm"
    PRIMARY = "primary"
    CACHE = "cache"
    REPLICA = "replica"
    COPY_A = "copy-a"
    COPY_B = "copy-b"
    COPY_C = "copy-c"
    ANALYTICS = "analytics"
    LEDGER = "ledger"
    EXPORTS = "exports"


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """How a local provider behaves.

    Attributes:
        latency_ms: How long it takes to answer.
        error: What it says when it fails; None: it does not fail.
        code: The code of a failure for good (402: declined, …).
        failing_attempts: Only so many attempts fail, in a way that is worth another try; None: it fails
            for good at the first.
    """

    __pydantic_config__ = _STRICT

    latency_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    error: str | None = None
    code: Annotated[int, Field(ge=400, le=599)] = 502
    failing_attempts: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, kw_only=True)
class Product:
    """An article and how many of it there are."""

    __pydantic_config__ = _STRICT

    sku: Name
    name: Name
    unit_price: Money
    units_in_stock: Annotated[int, Field(ge=0)]
    discontinued: bool = False


@dataclass(frozen=True, kw_only=True)
class OrderLine:
    """So many units of one article; `discount` is a share of the price (0.15: 15 %)."""

    __pydantic_config__ = _STRICT

    sku: Name
    quantity: Annotated[int, Field(gt=0, le=1_000_000)]
    unit_price: Money = Decimal(0)
    discount: Annotated[Decimal, Field(ge=0, le=1)] = Decimal(0)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an order goes."""

    __pydantic_config__ = _STRICT

    name: Name
    street: Name
    city: Name
    country: Name
    region: str | None = None
    postal_code: str | None = None


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a customer wants. `total` is what is charged; `freight` is information."""

    __pydantic_config__ = _STRICT

    order_id: OrderId
    customer_id: Name
    items: Annotated[tuple[OrderLine, ...], Field(min_length=1)]
    total: Money
    shipping_address: Address
    payment_method: Name = "card"
    email: str | None = None
    phone: str | None = None
    customer_name: str | None = None
    ordered_on: date | None = None
    freight: Money | None = None
    carrier: str | None = None
    simulate: Mapping[Provider, Behaviour] = field(default_factory=dict)


@dataclass(frozen=True)
class InventoryReservation:
    """Units taken from the stock for an order."""

    reservation_id: str
    order_id: str


@dataclass(frozen=True)
class Slot:
    """A place in a carrier's van."""

    slot_id: str
    order_id: str


@dataclass(frozen=True)
class Payment:
    """Money captured by a provider."""

    payment_id: str
    order_id: str
    provider: str
    amount: Decimal
    transaction_id: str


@dataclass(frozen=True)
class PickResult:
    """The parcel that left the shelf."""

    shipment_id: str
    units: int


@dataclass(frozen=True)
class Label:
    """What is stuck on the parcel."""

    slot_id: str
    tracking_number: str


@dataclass(frozen=True)
class Invoice:
    """The bill."""

    invoice_id: str
    order_id: str
    total: Decimal


@dataclass(frozen=True)
class Fulfillment:
    """What fulfilling an order gave."""

    picked: PickResult
    label: Label
    invoice: Invoice


@dataclass(frozen=True)
class OrderResult:
    """What a completed order gave."""

    order_id: str
    status: str
    payment: Payment
    fulfillment: Fulfillment


def units_by_sku(items: tuple[OrderLine, ...]) -> dict[str, int]:
    """How many units of each article, sorted by SKU: an order may name one twice.

    The order is the same for everybody, so that two orders never wait for each other's rows in a circle.
    """
    units: dict[str, int] = {}
    for line in items:
        units[line.sku] = units.get(line.sku, 0) + line.quantity
    return dict(sorted(units.items()))
