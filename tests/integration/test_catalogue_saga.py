"""Money is conserved: transfers with an optional step and partial compensation, on real workers."""

# ruff: noqa: F811  # the fixture is imported
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from canvas import RunFailed
from showroom import Showroom, Simulate, _show_its_log, refuses, showroom  # noqa: F401  # fixtures
from status import State, get_status, here
from status.following import unsettled
from status.states import FINAL
from tasks import accounts
from tasks.accounts import Transaction
from tasks.catalogue import Settled, complex_transaction
from tasks.domain import Behaviour, Provider
from tasks.rehearsal import tell
from waiting import wait_until

TIMEOUT_S = 60
TRANSFERS = 1000
#: Two close it, so that many credits are refused.
CLOSED = (18, 19)

BEHAVIOURS: Sequence[Simulate] = (
    {},
    {},
    {Provider.ANALYTICS: refuses("no more disk")},
    {Provider.ANALYTICS: Behaviour(error="busy", failing_attempts=1)},
    {Provider.LEDGER: Behaviour(error="busy", failing_attempts=2)},
    {Provider.LEDGER: refuses("holiday")},
)


def transfer(showroom: Showroom, source: str, target: str, cents: int, simulate: Simulate | None = None) -> Any:
    run_id = showroom.run_id(simulate)
    return complex_transaction.s(Transaction(run_id, source, target, cents)).submit(run_id=run_id)


def settled(handle: Any) -> Settled | None:
    """What came of it; None: the run failed."""
    try:
        result: Settled = handle.result(timeout_s=TIMEOUT_S)
    except RunFailed:
        return None
    return result


def ended(handles: Sequence[Any]) -> int:
    """How many have ended; all other runs of this module have."""
    unfinished = sum(number for state, number in here.reader().counts().items() if state not in FINAL)
    return len(handles) - unfinished


def runs_now(handle: Any, name: str) -> bool:
    """Whether a step of this name is in the hands of a worker."""
    return any(step.name == name and step.state == "running" for step in handle.status().steps)


def undone(run_id: str) -> list[str]:
    """What was undone, in that order; an undo of what came late is named after its step."""
    events = here.reader().history(run_id)
    return [event.name.removeprefix("undo ") for event in events if event.kind == "saga.undone"]


def test_without_its_optional_step_a_transfer_goes_on(showroom: Showroom) -> None:
    one, two = accounts.open_accounts("optional/", [100, 0])

    handle = transfer(showroom, one, two, 30, {Provider.ANALYTICS: refuses()})

    assert settled(handle) == Settled(handle.run_id, moved=True)
    assert accounts.balances("optional/") == {one: 70, two: 30}
    assert undone(handle.run_id) == []


@pytest.mark.parametrize(
    ("simulate", "expected"),
    [
        ({}, ["update-analytics", "debit-account"]),
        # What has failed needs no undo: only what is there is taken back.
        ({Provider.ANALYTICS: refuses()}, ["debit-account"]),
    ],
)
def test_a_credit_that_is_refused_undoes_what_was_done_newest_first(
    showroom: Showroom, simulate: Simulate, expected: list[str]
) -> None:
    prefix = f"{showroom.run_id()}/"
    one, shut = accounts.open_accounts(prefix, [100, 0], closed=[1])

    handle = transfer(showroom, one, shut, 30, simulate)

    assert settled(handle) == Settled(handle.run_id, moved=False, why=f"account {shut} is closed")
    assert undone(handle.run_id) == expected
    assert accounts.balances(prefix) == {one: 100, shut: 0}
    assert accounts.violations(prefix, {handle.run_id: False}) == []


def test_a_transfer_that_is_cancelled_half_way_leaves_all_money_where_it_was(showroom: Showroom) -> None:
    one, two = accounts.open_accounts("cancelled/", [100, 0])
    handle = transfer(showroom, one, two, 30, {Provider.ANALYTICS: Behaviour(latency_ms=2000)})
    wait_until(lambda: runs_now(handle, "accounts.update_analytics"), "the analysts are being told", TIMEOUT_S)
    assert accounts.balances("cancelled/") == {one: 70, two: 0}

    handle.cancel("the customer called")

    # The step can't be interrupted: it is waited for, and what it did is undone too.
    wait_until(lambda: get_status(handle.run_id).finished, "it has ended", TIMEOUT_S)
    assert handle.status().state is State.CANCELLED
    assert accounts.balances("cancelled/") == {one: 100, two: 0}
    assert sorted(undone(handle.run_id)) == ["debit-account", "update-analytics"]
    assert accounts.violations("cancelled/", {handle.run_id: False}) == []


@pytest.mark.timeout(400)
def test_money_is_conserved_under_1000_concurrent_transfers_with_failures(showroom: Showroom) -> None:
    """Closed accounts, empty ones, providers that are down or busy, cancels, and a worker that is killed."""
    dice = Random(7)
    opened = accounts.open_accounts("many/", [20_000] * 20, closed=CLOSED)
    transactions = [Transaction(f"many-{n}", *dice.sample(opened, 2), dice.randint(1, 8_000)) for n in range(TRANSFERS)]
    tell({tx.tx_id: dice.choice(BEHAVIOURS) for tx in transactions})
    doomed = showroom.another("doomed", concurrency=4)
    doomed.start()

    handles = [complex_transaction.s(tx).submit(run_id=tx.tx_id) for tx in transactions]
    for handle in handles[::40]:
        handle.cancel("changed my mind")
    wait_until(lambda: ended(handles) > TRANSFERS // 4, "a quarter has ended", 180)
    doomed.kill()
    wait_until(lambda: ended(handles) == TRANSFERS, "all have ended", 300, every_s=0.5)
    wait_until(lambda: not unsettled(here.reader(), [h.run_id for h in handles]), "nothing goes on", 60)

    moved = {h.run_id: bool((found := settled(h)) and found.moved) for h in handles}
    assert accounts.violations("many/", moved) == []
    assert sum(accounts.balances("many/").values()) == 20 * 20_000
    states = Counter(h.status().state for h in handles)
    assert not states[State.COMPENSATION_FAILED]
    assert not states[State.FAILED]
    # All ways were gone: or this would have shown nothing.
    assert sum(moved.values()) > 300
    assert states[State.COMPLETED] - sum(moved.values()) > 100
    assert states[State.COMPENSATED] + states[State.CANCELLED] > 20
