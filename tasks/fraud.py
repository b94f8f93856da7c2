"""Who is not sold to."""

from __future__ import annotations

from decimal import Decimal

from canvas import step

#: An order above this is looked at by a person first.
LIMIT = Decimal(50_000)
BLOCKED_CUSTOMERS = frozenset({"MALLORY"})


@step(name="fraud.check", queue="fraud")
def check(customer_id: str, total: Decimal) -> bool:
    """Whether the customer may buy for this much."""
    return customer_id not in BLOCKED_CUSTOMERS and total <= LIMIT
