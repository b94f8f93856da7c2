"""The order that both sides carry: a few small values, and what every side must be able to do with it."""

from __future__ import annotations

from typing import Any, Protocol

Json = dict[str, Any]


def order_of(order_id: str) -> Json:
    return {"id": order_id, "sku": "A-100", "total": 42.5, "address": "1 Main St", "customer": "c-7"}


class Side(Protocol):
    """One of the two implementations."""

    name: str

    def start(self, order_id: str) -> None:
        """Submit an order and return at once."""

    def wait(self, order_id: str, timeout_s: float) -> bool:
        """Whether the order is completed within the time; raises if it has failed."""
