"""validate (chord of 4) → reserve → slot → charge → capture → fulfil (chord of 3) → notify (chord of 3).

14 steps that do nothing, and the 3 chord bodies that stock canvas needs to go on from a chord; the last
body tells the client. Stock canvas has no race: `charge` stands for the provider that answers first.

Best stock settings, from Celery's documentation and from measuring:

- late acknowledgement and `reject_on_worker_lost`, since an order must survive its worker;
- no results where nobody reads them: a chord needs those of its header and body, the single steps need none;
- the client waits by BLPOP for a name that the last task pushes: `AsyncResult.get()` costs it a
  subscription and a GET for each order;
- the errback is linked once to the whole chain, which gives it to every step that it may have to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import redis
from celery import Signature, Task, chain, chord, current_app, shared_task

from bench.orders import Json, order_of

DONE = "bench:stock:done"
FAILED = "failed:"

P = ParamSpec("P")
R = TypeVar("R")


def in_chord(work: Callable[P, R]) -> Task[P, R]:
    """A task in a chord, header or body: its result is needed."""
    return shared_task(name=f"stock.{work.__name__}", acks_late=True, reject_on_worker_lost=True)(work)


def alone(work: Callable[P, R]) -> Task[P, R]:
    """A task that hands its result to the next one of the chain, and to nobody else."""
    name = f"stock.{work.__name__}"
    return shared_task(name=name, acks_late=True, reject_on_worker_lost=True, ignore_result=True)(work)


@in_chord
def check_inventory(order: Json) -> bool:
    return bool(order["sku"])


@in_chord
def check_payment(order: Json) -> bool:
    return bool(order["total"])


@in_chord
def check_shipping(order: Json) -> bool:
    return bool(order["address"])


@in_chord
def check_fraud(order: Json) -> bool:
    return bool(order["customer"])


@in_chord
def validated(checks: list[bool], order: Json) -> Json:
    if not all(checks):
        raise ValueError("the order is not valid")
    return order


@alone
def reserve_inventory(order: Json) -> Json:
    return {**order, "reservation": f"res-{order['id']}"}


@alone
def reserve_shipping(order: Json) -> Json:
    return {**order, "slot": f"slot-{order['id']}"}


@alone
def charge(order: Json) -> Json:
    return {**order, "charge": f"ch-{order['id']}"}


@alone
def capture(order: Json) -> Json:
    return {**order, "captured": True}


@in_chord
def pick(order: Json) -> Json:
    return {"picked": order["reservation"]}


@in_chord
def label(order: Json) -> Json:
    return {"label": order["slot"]}


@in_chord
def invoice(order: Json) -> Json:
    return {"invoice": order["charge"]}


@in_chord
def fulfilled(parts: list[Json], order_id: str) -> Json:
    return {"id": order_id, **{key: value for part in parts for key, value in part.items()}}


@in_chord
def send_email(order: Json) -> bool:
    return bool(order["label"])


@in_chord
def send_sms(order: Json) -> bool:
    return bool(order["id"])


@in_chord
def send_push(order: Json) -> bool:
    return bool(order["id"])


@alone
def completed(sent: list[bool], order_id: str) -> None:
    """The last body: nobody reads its result, the client waits for the name that it pushes."""
    _redis().lpush(DONE, order_id if all(sent) else f"{FAILED}{order_id}")


@alone
def undo_order(order_id: str) -> None:
    """The errback: here it would release, cancel and refund whatever the order has got so far."""
    _redis().lpush(DONE, f"{FAILED}{order_id}")


def _redis() -> redis.Redis:
    client: redis.Redis = cast("Any", current_app.backend).client  # its pool is shared by the process
    return client


def complete_order(order_id: str) -> Signature[Any]:
    order = order_of(order_id)
    checks = [check.s(order) for check in (check_inventory, check_payment, check_shipping, check_fraud)]
    flow = chain(
        chord(checks, validated.s(order)),
        reserve_inventory.s(),
        reserve_shipping.s(),
        charge.s(),
        capture.s(),
        chord([pick.s(), label.s(), invoice.s()], fulfilled.s(order_id)),
        chord([send_email.s(), send_sms.s(), send_push.s()], completed.s(order_id)),
    )
    # Immutable: it is a message of its own and wants the order, not the failed task's id.
    whole: Signature[Any] = flow.on_error(undo_order.si(order_id))
    return whole


class Side:
    """This side of the bench."""

    name = "stock"

    def __init__(self, redis_url: str) -> None:
        # redis-py 8 gives up on a socket after 5 s unless told otherwise; BLPOP has a timeout of its own.
        self._client = redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=None)
        self._done: set[str] = set()

    def start(self, order_id: str) -> None:
        with current_app.producer_pool.acquire(block=True) as producer:
            complete_order(order_id).apply_async(producer=producer)

    def wait(self, order_id: str, timeout_s: float) -> bool:
        """Whether the order is completed within the time.

        Raises:
            RuntimeError: Some order of this side has failed.
        """
        while order_id not in self._done:
            answer = self._client.blpop([DONE], timeout=max(timeout_s, 0.001))
            if answer is None:
                return False
            done = str(answer[1])
            if done.startswith(FAILED):
                raise RuntimeError(f"order {done.removeprefix(FAILED)} failed")
            self._done.add(done)
        return True

    def completed(self, order_ids: Sequence[str]) -> int:
        """How many of these orders are completed by now, of those that nobody has waited for."""
        done: list[str] = cast("Any", self._client).lrange(DONE, 0, -1)
        return len(set(order_ids) & set(done))
