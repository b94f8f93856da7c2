"""The order of `bench/stock/order.py`, of which the last step of fulfilment fails; its errback is the chain of undos.

Linked once to the whole flow, which gives it to every step. As every undo must bear an action that never ran, the
chain may always be all three, newest first.
"""

from __future__ import annotations

from typing import Any, cast

import redis
from celery import Signature, chain, chord, current_app, shared_task

from bench.orders import Json, order_of
from bench.stock.answers import connect, pop, push
from bench.stock.order import (
    alone,
    capture,
    charge,
    check_fraud,
    check_inventory,
    check_payment,
    check_shipping,
    completed,
    fulfilled,
    in_chord,
    label,
    pick,
    reserve_inventory,
    reserve_shipping,
    send_email,
    send_push,
    send_sms,
    validated,
)

UNDONE, COUNT = "bench:undo:done", "bench:undone:stock"


@in_chord
def invoice_fails(order: Json) -> Json:
    raise ValueError(f"no invoice for {order['id']}")


@alone
def refund(order_id: str) -> None:
    """An undo."""


@alone
def cancel_shipping(order_id: str) -> None:
    """An undo."""


@alone
def release_inventory(order_id: str) -> None:
    """The last undo: counted, so that it is known how often orders are undone."""
    client: redis.Redis = cast("Any", current_app.backend).client
    client.incr(COUNT)


@shared_task(name="stock.undone", acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def undone(order_id: str) -> None:
    push(UNDONE, order_id)


def failing_order(order_id: str) -> Signature[Any]:
    order = order_of(order_id)
    checks = [check.s(order) for check in (check_inventory, check_payment, check_shipping, check_fraud)]
    flow = chain(
        chord(checks, validated.s(order)),
        reserve_inventory.s(),
        reserve_shipping.s(),
        charge.s(),
        capture.s(),
        chord([pick.s(), label.s(), invoice_fails.s()], fulfilled.s(order_id)),
        chord([send_email.s(), send_sms.s(), send_push.s()], completed.s(order_id)),
    )
    undos = chain(
        refund.si(order_id), cancel_shipping.si(order_id), release_inventory.si(order_id), undone.si(order_id)
    )
    whole: Signature[Any] = flow.on_error(undos)
    return whole


class Side:
    """This side of the bench."""

    name, counter = "stock", COUNT

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)
        self._undone: set[str] = set()

    def start(self, order_id: str) -> None:
        with current_app.producer_pool.acquire(block=True) as producer:
            failing_order(order_id).apply_async(producer=producer)

    def wait(self, order_id: str, timeout_s: float) -> bool:
        """Whether the order is undone within the time."""
        while order_id not in self._undone:
            answer = pop(self._client, UNDONE, timeout_s)
            if answer is None:
                return False
            self._undone.add(answer)
        return True
