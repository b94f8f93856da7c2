"""Accounts: money moves in single entries, and there is as much of it afterwards as before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from canvas import Retry, current_step, step
from saga.effects import Receipt, open_receipt
from status.errors import TerminalError
from tasks.catalogue_models import AccountRow, EntryRow, StatisticRow
from tasks.domain import Provider
from tasks.once import add, derived_id, once, reading, undo_once, writing
from tasks.sources import ask, insert_missing

QUEUE = "catalogue"
_RETRY = Retry(max_attempts=4, first_s=0.1)


@dataclass(frozen=True)
class Transaction:
    """Money that one account is to give to another."""

    tx_id: str
    from_account: str
    to_account: str
    cents: int


@step(name="accounts.debit", queue=QUEUE, retry=_RETRY)
def debit_account(account_id: str, cents: int, tx_id: str) -> str:
    """Take money from an account; gives the entry's id.

    Raises:
        TerminalError: There is not enough on it (402), or no such account (404).
    """
    return once(str, lambda session, key: book(session, key, account_id, tx_id, -cents))


@step(name="accounts.credit", queue=QUEUE, retry=_RETRY)
def credit_account(account_id: str, cents: int, tx_id: str) -> str | None:
    """Put money on an account; gives the entry's id. As an undo: give back what was taken, if it was.

    Raises:
        TerminalError: The account is closed (409; not as an undo), or there is none (404).
        ProviderDown: The ledger of the other bank did not answer (not as an undo).
    """
    if current_step().undoes is None:
        ask(Provider.LEDGER)
    with writing() as session, open_receipt(session.connection(), current_step()) as r:
        if not r.done and (r.undoes is None or r.acted):
            if r.undoes is None:
                refuse_closed(session, account_id)
            r.store(book(session, current_step().idempotency_key, account_id, tx_id, cents))
        return None if r.value is None else str(r.value)


@step(name="accounts.take_back", queue=QUEUE)
def take_back(account_id: str, cents: int, tx_id: str) -> None:
    """Undo a credit, below nothing if the money is spent: it never was this account's."""

    def effect(session: Session, r: Receipt) -> None:
        if r.acted:
            book(session, current_step().idempotency_key, account_id, tx_id, -cents, overdraw=True)

    undo_once(effect)


@step(name="accounts.update_analytics", queue=QUEUE, retry=_RETRY)
def update_analytics(tx: Transaction) -> str:
    """Let the analysts know of a transfer; gives the entry's id.

    Raises:
        TerminalError: They do not want to.
        ProviderDown: They did not answer.
    """
    ask(Provider.ANALYTICS)

    def write(session: Session, key: str) -> str:
        entry_id = derived_id("stat", key)
        row = StatisticRow(entry_id=entry_id, tx_id=tx.tx_id, cents=tx.cents, key=key)
        add(session, row, already=f"transfer {tx.tx_id} is counted already")
        return entry_id

    return once(str, write)


@step(name="accounts.remove_analytics", queue=QUEUE)
def remove_analytics(entry_id: str | None) -> None:
    """Undo `update_analytics`.

    Args:
        entry_id: What it gave; None if that is unknown, then the entry is looked for by its key.
    """
    del entry_id

    def effect(session: Session, r: Receipt) -> None:
        row = session.scalar(select(StatisticRow).where(StatisticRow.key == r.undoes))
        if row is not None:
            session.delete(row)

    undo_once(effect)


def book(session: Session, key: str, account_id: str, tx_id: str, cents: int, *, overdraw: bool = False) -> str:
    """Change an account, with an entry that says so; gives the entry's id.

    Raises:
        TerminalError: There is not enough on it (402), or no such account (404).
    """
    change = update(AccountRow).where(AccountRow.account_id == account_id)
    if cents < 0 and not overdraw:
        # Compared and taken in one statement: of two that want the last cent, one finds no row.
        change = change.where(AccountRow.cents >= -cents)
    changed = session.scalar(change.values(cents=AccountRow.cents + cents).returning(AccountRow.account_id))
    if changed is None:
        if session.get(AccountRow, account_id) is None:
            raise TerminalError(f"there is no account {account_id}", code=404)
        raise TerminalError(f"account {account_id} has less than {-cents} cents", code=402)
    entry_id = derived_id("ent", key)
    session.add(EntryRow(entry_id=entry_id, account_id=account_id, tx_id=tx_id, cents=cents, key=key))
    session.flush()
    return entry_id


def refuse_closed(session: Session, account_id: str) -> None:
    """Raise TerminalError (409) if the account takes no money."""
    if session.scalar(select(AccountRow.closed).where(AccountRow.account_id == account_id)):
        raise TerminalError(f"account {account_id} is closed", code=409)


def open_accounts(prefix: str, opening_cents: Sequence[int], *, closed: Iterable[int] = ()) -> list[str]:
    """Open an account `<prefix>N` for each opening balance; those of the numbers in `closed` take no money."""
    shut = set(closed)
    rows = [
        AccountRow(account_id=f"{prefix}{n}", opening_cents=cents, cents=cents, closed=n in shut)
        for n, cents in enumerate(opening_cents)
    ]
    with writing() as session:
        insert_missing(session, rows)
    return [f"{prefix}{n}" for n in range(len(opening_cents))]


def balances(prefix: str) -> Mapping[str, int]:
    """What is on the accounts whose id begins with `prefix`, in cents."""
    with reading() as session:
        query = select(AccountRow.account_id, AccountRow.cents).where(AccountRow.account_id.startswith(prefix))
        return dict(session.execute(query).all())


def violations(prefix: str, moved: Mapping[str, bool]) -> list[str]:
    """What does not hold of the accounts whose id begins with `prefix`, one sentence each.

    Args:
        moved: By transfer: whether its money has moved. All of them have ended, and nothing else was done.
    """
    with reading() as session:
        return [*_conserved(session, prefix), *_whole(session, moved), *_counted(session, moved)]


def _conserved(session: Session, prefix: str) -> list[str]:
    """As much money as at the start; each account has what its entries say."""
    mine = AccountRow.account_id.startswith(prefix)
    wrong = []
    opened, there = session.execute(
        select(func.sum(AccountRow.opening_cents), func.sum(AccountRow.cents)).where(mine)
    ).one()
    if opened != there:
        wrong.append(f"there were {opened} cents at the start, now there are {there}")
    entries = select(EntryRow.account_id, func.sum(EntryRow.cents)).group_by(EntryRow.account_id)
    booked = dict(session.execute(entries.where(EntryRow.account_id.startswith(prefix))).all())
    for account in session.scalars(select(AccountRow).where(mine)):
        due = account.opening_cents + int(booked.get(account.account_id, 0))
        if account.cents != due:
            wrong.append(f"account {account.account_id} has {account.cents} cents, its entries say {due}")
    return wrong


def _whole(session: Session, moved: Mapping[str, bool]) -> list[str]:
    """A transfer has moved all of its money, or none: no account has changed."""
    changed: dict[str, list[int]] = {tx_id: [] for tx_id in moved}
    sums = select(EntryRow.tx_id, func.sum(EntryRow.cents)).group_by(EntryRow.tx_id, EntryRow.account_id)
    for tx_id, cents in session.execute(sums).all():
        if tx_id in changed and cents:
            changed[tx_id].append(int(cents))
    return [
        f"transfer {tx_id} {'moved' if moved[tx_id] else 'did not move'}, and changed accounts by {cents}"
        for tx_id, cents in changed.items()
        if sum(cents) or len(cents) != (2 if moved[tx_id] else 0)
    ]


def _counted(session: Session, moved: Mapping[str, bool]) -> list[str]:
    """The analysts know of no transfer that did not happen."""
    counted = session.scalars(select(StatisticRow.tx_id))
    return [f"transfer {tx_id} did not move and is counted" for tx_id in counted if moved.get(tx_id) is False]
