"""An effect once: twice-run steps, tombstones, and two processes that want the same."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from canvas.context import CurrentStep, running_as
from saga import database
from saga.effects import Identity, Receipt, ReceiptMismatch, Tombstoned, look, open_receipt
from saga.receipt import receipt
from status.errors import ConfigError, PayloadError, TerminalError

ACTION = Identity(step_name="payment.charge", idempotency_key="r1/0/2/0", arguments_digest="abc")
UNDO = Identity(step_name="payment.refund", idempotency_key="r1/0/7/0", undoes=ACTION.idempotency_key)


@pytest.fixture
def url(sql_url: str) -> str:
    with database.transaction(sql_url) as session:
        session.execute(text("CREATE TABLE charges (amount INTEGER)"))
    return sql_url


def charge(url: str, owner: Identity = ACTION, amount: int = 5) -> object:
    with database.transaction(url) as session, open_receipt(session, owner) as r:
        if not r.done:
            session.execute(text("INSERT INTO charges VALUES (:amount)"), {"amount": amount})
            r.store({"amount": amount})
        return r.value


def charges(url: str) -> int:
    with database.session(url) as session:
        return int(session.execute(text("SELECT count(*) FROM charges")).scalar_one())


def undo(url: str, owner: Identity = UNDO) -> Receipt:
    with database.transaction(url) as session, open_receipt(session, owner) as r:
        return r


def test_a_step_that_runs_twice_has_one_effect_and_the_same_value(url: str) -> None:
    assert [charge(url), charge(url, amount=9)] == [{"amount": 5}] * 2
    assert charges(url) == 1


def test_two_calls_have_an_effect_each(url: str) -> None:
    charge(url)
    charge(url, Identity(step_name="payment.charge", idempotency_key="r2/0/2/0"))

    assert charges(url) == 2


def test_effect_and_receipt_are_taken_back_together(url: str) -> None:
    def fail() -> None:
        with database.transaction(url) as session, open_receipt(session, ACTION) as r:
            session.execute(text("INSERT INTO charges VALUES (1)"))
            r.store(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert charges(url) == 0
    assert charge(url) == {"amount": 5}


def test_so_they_are_when_the_transaction_goes_on(url: str) -> None:
    def fail(session: Session) -> None:
        with open_receipt(session, ACTION):
            session.execute(text("INSERT INTO charges VALUES (1)"))
            raise ZeroDivisionError

    with database.transaction(url) as session, pytest.raises(ZeroDivisionError):
        fail(session)

    assert charges(url) == 0
    assert charge(url) == {"amount": 5}


def test_a_block_without_store_leaves_a_receipt_too(url: str) -> None:
    with database.transaction(url) as session, open_receipt(session, ACTION) as r:
        assert not r.done
    with database.transaction(url) as session, open_receipt(session, ACTION) as r:
        assert (r.done, r.value) == (True, None)


@pytest.mark.parametrize(
    "other",
    [
        Identity(step_name="payment.charge", idempotency_key=ACTION.idempotency_key, arguments_digest="xyz"),
        Identity(step_name="payment.other", idempotency_key=ACTION.idempotency_key, arguments_digest="abc"),
    ],
)
def test_a_key_belongs_to_one_step_with_one_set_of_arguments(url: str, other: Identity) -> None:
    charge(url)

    with pytest.raises(ReceiptMismatch, match=r"r1/0/2/0 belongs to payment\.charge with arguments 'abc'"):
        charge(url, other)
    assert charges(url) == 1


def test_an_undo_learns_what_the_action_stored(url: str) -> None:
    charge(url)

    r = undo(url)
    assert (r.done, r.undoes, r.acted, r.action) == (False, "r1/0/2/0", True, {"amount": 5})


def test_an_undo_that_comes_first_leaves_a_tombstone(url: str) -> None:
    r = undo(url)

    assert (r.acted, r.action) == (False, None)
    with pytest.raises(Tombstoned, match=r"was undone by payment\.refund before it ran") as raised:
        charge(url)
    assert isinstance(raised.value, TerminalError)
    assert raised.value.code == 409
    assert charges(url) == 0


def test_an_undo_that_runs_twice_knows_the_same_twice(url: str) -> None:
    undo(url)

    again = undo(url)
    assert (again.done, again.acted) == (True, False)


def test_looking_writes_nothing(url: str) -> None:
    def look_now() -> Receipt | None:
        with database.session(url) as session:
            return look(session, ACTION)

    assert look_now() is None
    charge(url)
    found = look_now()
    assert found is not None
    assert (found.done, found.value) == (True, {"amount": 5})


def test_looking_meets_the_tombstone_too(url: str) -> None:
    undo(url)

    with database.session(url) as session, pytest.raises(Tombstoned):
        look(session, ACTION)


def test_the_step_that_runs_now_is_whose_receipt_it_is(url: str) -> None:
    here = CurrentStep("r1", "r1/2.0", ACTION.idempotency_key, step_name="payment.charge", arguments="[5]")
    with running_as(here), database.transaction(url) as session, receipt(session) as r:
        r.store(1)
    with running_as(here), database.transaction(url) as session, receipt(session) as r:
        assert (r.done, r.value) == (True, 1)


def test_outside_of_a_step_there_is_no_receipt(url: str) -> None:
    with database.transaction(url) as session, pytest.raises(ConfigError), receipt(session):
        pass


def test_undoes_can_be_told_by_the_caller(url: str) -> None:
    plain = Identity(step_name="payment.refund", idempotency_key="r1/0/7/0")
    with database.transaction(url) as session, open_receipt(session, plain, undoes="r1/0/2/0"):
        pass

    with pytest.raises(Tombstoned):
        charge(url)


def test_a_core_connection_will_do(url: str) -> None:
    with database.engine(url).begin() as connection, open_receipt(connection, ACTION) as r:
        r.store(1)
    with database.engine(url).begin() as connection, open_receipt(connection, ACTION) as r:
        assert r.value == 1


def test_typed_values_are_stored_as_json(url: str) -> None:
    @dataclass
    class Paid:
        amount: Decimal
        on: date

    with database.transaction(url) as session, open_receipt(session, ACTION) as r:
        r.store(Paid(Decimal("1.50"), date(2026, 1, 2)))
        assert r.value == {"amount": "1.50", "on": "2026-01-02"}


def test_what_is_not_json_is_refused(url: str) -> None:
    def store() -> None:
        with database.transaction(url) as session, open_receipt(session, ACTION) as r:
            r.store(object())

    with pytest.raises(PayloadError, match="not JSON"):
        store()


def test_a_database_without_receipts_is_told_with_its_remedy(tmp_path: Path) -> None:
    bare = create_engine(f"sqlite:///{tmp_path}/bare.db")

    def enter() -> None:
        with Session(bare) as session, open_receipt(session, ACTION):
            pass

    with pytest.raises(ConfigError, match=r"call saga\.schema\.create_all\(engine\)"):
        enter()


def test_two_threads_with_one_key_have_one_effect(url: str) -> None:
    together = threading.Barrier(4)

    def at_once() -> object:
        together.wait(30)
        return charge(url)

    with ThreadPoolExecutor(4) as pool:
        values = [future.result(60) for future in [pool.submit(at_once) for _ in range(4)]]

    assert values == [{"amount": 5}] * 4
    assert charges(url) == 1


def _charge_at(url: str, barrier: threading.Barrier) -> None:
    barrier.wait(30)
    charge(url)


def test_two_processes_with_one_key_have_one_effect(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    children = [spawn.Process(target=_charge_at, args=(url, barrier)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    assert [child.exitcode for child in children] == [0, 0]
    assert charges(url) == 1


def test_action_and_undo_at_once_end_in_one_of_two_ways(url: str) -> None:
    """Either the undo sees the action, or the action never happens."""
    together = threading.Barrier(2)

    def act() -> bool:
        together.wait(30)
        try:
            charge(url)
        except Tombstoned:
            return False
        return True

    def take_back() -> bool:
        together.wait(30)
        return undo(url).acted

    with ThreadPoolExecutor(2) as pool:
        acted, seen = pool.submit(act), pool.submit(take_back)

        assert acted.result(60) == seen.result(60) == bool(charges(url))
