"""Orders, approvals and reports to look at: each way that a run can go, slow enough to be watched."""

from __future__ import annotations

import os
import threading

import redis
from celery import Celery

import canvas
from canvas import (
    Retry,
    Run,
    TerminalError,
    current_step,
    fan_out,
    fan_out_fail,
    map_concurrent,
    promise,
    quorum,
    race,
    race_promise_with_timeout,
    step,
    workflow,
)
from saga import Saga

app = Celery("gallery", broker=os.environ.get("REDIS_URL"))
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
canvas.install(app)
app.set_default()

#: How much slower than at once: 1 for a person who watches.
PACE = float(os.environ.get("GALLERY_PACE", "0.1"))

MARKUP = "<script>document.title = 'owned'</script>"

approval = promise("approval", bool)
budget = promise("budget", int)


def _take(seconds: float) -> None:
    threading.Event().wait(seconds * PACE)


# --- steps -----------------------------------------------------------------------------


@step(name="goods.check")
def check(sku: str) -> str:
    _take(0.4)
    return sku


@step(name="risk.score")
def score(customer: str) -> float:
    _take(0.7)
    return 0.02


@step(name="goods.reserve")
def reserve(sku: str) -> str:
    _take(0.5)
    return f"reservation of {sku}"


@step(name="goods.release")
def release(reservation: str | None) -> None:
    _take(0.3)


@step(name="card.charge", interruptible=True)
def charge(provider: str, cents: int, takes_s: float) -> str:
    _take(takes_s)
    return f"{provider} took {cents}"


@step(name="card.refund")
def refund(receipt: str | None) -> None:
    _take(0.3)


@step(name="parcel.book", retry=Retry(3, first_s=0.3 * PACE, jitter=0))
def ship(sku: str, failures: int = 0) -> str:
    _take(0.4)
    if current_step().attempt <= failures:
        raise ConnectionError("the carrier does not answer; password=hunter2")
    return f"{sku} is on its way"


@step(name="shelf.pick", retry=Retry(1))
def pick(aisle: str) -> str:
    _take(0.5)
    raise TerminalError(f"aisle {aisle} is closed", code=503)


@step(name="mail.send")
def mail(to: str) -> str:
    _take(0.3)
    return to


@step(name="mail.fail_once", retry=Retry(1))
def fail_once(key: str) -> str:
    """Fails, until somebody has mended it."""
    if not redis.Redis.from_url(os.environ["REDIS_URL"]).get(key):
        raise TerminalError("not mended yet", code=422)
    return "mended"


@step(name=f"odd.{MARKUP}")
def odd(n: int) -> int:
    return n


@step(name="carrier.cancel", retry=Retry(1))
def cancel_carrier(booking: str | None, key: str) -> None:
    """Gives up, until somebody has mended it."""
    if not redis.Redis.from_url(os.environ["REDIS_URL"]).get(key):
        raise TerminalError("the carrier does not answer", code=503)


# --- workflows -------------------------------------------------------------------------


@workflow(name="shop.order")
async def order(  # noqa: PLR0917  # as orders are
    run: Run, customer: str, sku: str, cents: int, card_number: str = "", broken: str = "", failures: int = 0
) -> list[str]:
    """An order: checked, reserved, paid by whoever is first, shipped; undone if the warehouse can't pick it."""
    run.update_status(phase="validate", progress=0.05, customer=customer)
    await fan_out_fail(check.s(sku), score.s(customer))
    async with Saga(run, "order") as saga:
        run.update_status(phase="reserve", progress=0.25)
        await saga.safe_step("reservation").with_compensation(release).execute(reserve.s(sku))
        run.update_status(phase="pay", progress=0.45)
        offers = race(charge.s("stripe", cents, 0.6).named("stripe"), charge.s("paypal", cents, 3.0).named("paypal"))
        paid = await saga.safe_step("payment").with_compensation(refund).execute(offers)
        run.update_status(phase="ship", progress=0.7)
        if broken:
            await pick.s(broken)
        sent = await ship.s(sku, failures)
    run.update_status(phase="notify", progress=0.9)
    await fan_out(mail.s(customer), mail.s("warehouse@example.org"))
    run.update_status(phase="done", progress=1.0)
    return [paid.value, sent]


@workflow(name="refunds.approve")
async def approve(run: Run, cents: int) -> str:
    run.update_status(phase="wait for approval", progress=0.3)
    answer = await race_promise_with_timeout(approval, 3 * 86_400)
    if answer.timed_out:
        return "nobody said anything"
    run.update_status(phase="refund", progress=0.8)
    if answer.value:
        await refund.s(None)
    return "refunded" if answer.value else "refused"


@workflow(name="budgets.ask")
async def ask_budget(run: Run) -> int:
    return await budget


@workflow(name="reports.build")
async def report(run: Run, parts: int) -> int:
    """Children, a batch, a quorum and a rest."""
    run.update_status(phase="collect", progress=0.1)
    await fan_out_fail(retried.s(1).with_run_id(f"{run.id}-first"), retried.s(0).with_run_id(f"{run.id}-second"))
    run.update_status(phase="compute", progress=0.5)
    done = await map_concurrent(check, [f"part {n}" for n in range(parts)], 10)
    await quorum(2, check.s("north"), check.s("south"), check.s("west"))
    await run.sleep(0.5 * PACE)
    run.update_status(phase="done", progress=1.0)
    return len(done)


@workflow(name="reports.part")
async def retried(run: Run, failures: int) -> str:
    return await ship.s("paper", failures)


@workflow(name="mail.mended")
async def mended(run: Run, key: str) -> str:
    await check.s("first")
    return await fail_once.s(key)


@workflow(name="orders.stuck")
async def stuck(run: Run, key: str) -> None:
    """Its last undo gives up, until it is mended."""
    async with Saga(run, "order", retry=Retry(1)) as saga:
        await saga.safe_step("reservation").with_compensation(release).execute(reserve.s("Anvil"))
        await saga.safe_step("carrier").with_compensation(cancel_carrier, key).execute(check.s("Anvil"))
        await pick.s("9")


@workflow(name="odd.names")
async def odd_names(run: Run) -> int:
    run.update_status(phase=MARKUP, progress=0.5, note=MARKUP)
    return await odd.s(1)


@workflow(name="long.sleep")
async def long_sleep(run: Run) -> None:
    run.update_status(phase="asleep", progress=0.5)
    await run.sleep(3 * 86_400)
