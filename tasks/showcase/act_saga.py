"""Pattern 6, played: transfers that fail in all ways, and money that is all there afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from status import State
from tasks import accounts
from tasks.accounts import Transaction
from tasks.catalogue import Settled, complex_transaction
from tasks.domain import Behaviour, Provider
from tasks.showcase.acts import refuses
from tasks.showcase.stage import Simulate, Stage, Started, ended, said

OPENING_CENTS = (100_000,) * 8
#: The number of the account that takes no money.
CLOSED = 7
TRANSFERS = 40

#: How the providers of a transfer may behave.
BEHAVIOURS: Sequence[Simulate] = (
    {},
    {},
    {Provider.ANALYTICS: refuses("no more disk", 0)},
    {Provider.LEDGER: Behaviour(error="busy", failing_attempts=2)},
    {Provider.LEDGER: refuses("holiday", 0)},
)


def saga(stage: Stage) -> None:
    """Pattern 6."""
    prefix = f"{stage.id}/"
    opened = accounts.open_accounts(prefix, OPENING_CENTS, closed=[CLOSED])
    stage.say("transfers: as it should be; without its analytics; to a closed account; of more than there is")
    named = [_transfer(stage, label, tx, told) for label, tx, told in _named(stage, opened)]
    stage.follow(*named)
    stage.say(f"and {TRANSFERS} at once, some of which fail")
    dice = Random(stage.id)  # noqa: S311  # a demo
    many = [
        _transfer(stage, f"t{n}", _any(stage, f"t{n}", dice, opened), dice.choice(BEHAVIOURS)) for n in range(TRANSFERS)
    ]
    stage.follow(*many)
    _check_named(stage, named)
    _check_money(stage, prefix, [*named, *many])


def _named(stage: Stage, opened: Sequence[str]) -> Iterator[tuple[str, Transaction, Simulate]]:
    yield "plain", Transaction(stage.run_id("plain"), opened[0], opened[1], 500), {}
    no_analytics = {Provider.ANALYTICS: refuses("no more disk")}
    yield "uncounted", Transaction(stage.run_id("uncounted"), opened[1], opened[2], 500), no_analytics
    yield "closed", Transaction(stage.run_id("closed"), opened[2], opened[CLOSED], 500), {}
    yield "poor", Transaction(stage.run_id("poor"), opened[3], opened[4], 10 * OPENING_CENTS[3]), {}


def _any(stage: Stage, label: str, dice: Random, opened: Sequence[str]) -> Transaction:
    source, target = dice.sample(opened, 2)
    return Transaction(stage.run_id(label), source, target, dice.randint(1, OPENING_CENTS[0] // 2))


def _transfer(stage: Stage, label: str, tx: Transaction, simulate: Simulate) -> Started[Settled]:
    return stage.start(complex_transaction.s(tx), label, simulate)


def _has_moved(run: Started[Settled]) -> bool:
    settled = run.value()
    return settled is not None and settled.moved


def _check_named(stage: Stage, named: Sequence[Started[Settled]]) -> None:
    plain, uncounted, closed, poor = named
    stage.show("a step that may fail is caught; a step that must not undoes what was done before it, newest first")
    stage.check("the money has moved", _has_moved(plain), said(plain))
    stage.check("without analytics it has moved too", _has_moved(uncounted), said(uncounted))
    refused = closed.value()
    undone = refused is not None and not refused.moved
    stage.check("a credit that is refused is undone, and the result says why", undone, refused and refused.why)
    stage.check("who can't pay fails with code 402", ended(poor, State.COMPENSATED, 402), said(poor))


def _check_money(stage: Stage, prefix: str, runs: Sequence[Started[Settled]]) -> None:
    moved = {run.run_id: _has_moved(run) for run in runs}
    stage.show(f"of {len(runs)} transfers {sum(moved.values())} moved their money")
    before, after = sum(OPENING_CENTS), sum(accounts.balances(prefix).values())
    stage.check("there is as much money as before", before == after, f"{before} cents, {after} cents")
    broken = accounts.violations(prefix, moved)
    claim = "each transfer moved all of its money or none; balances are what the entries say"
    stage.check(claim, not broken, "; ".join(broken) or f"{len(runs)} transfers, {len(OPENING_CENTS)} accounts")
