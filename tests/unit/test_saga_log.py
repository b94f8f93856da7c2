"""The log of what is owed: written once, only forward, oldest first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from saga import database
from saga.log import Begin, EntryState, Move, SagaLog
from status.errors import ConfigError

S = EntryState
START = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clock:
    """Every look at it is a second later."""

    def __init__(self) -> None:
        self.moments: Iterator[datetime] = (START + timedelta(seconds=n) for n in itertools.count())

    def __call__(self) -> datetime:
        return next(self.moments)


@pytest.fixture
def log(sql_url: str) -> SagaLog:
    return SagaLog(database.engine(sql_url), now=Clock())


def begin(key: str = "r1/0/s/1", *, run_id: str = "r1", seq: int = 1, **changes: Any) -> Begin:
    undo = {"task": "inventory.release", "args": ["o1"], "kwargs": {}, "queue": "inventory"}
    given = {"workflow": "orders.complete", "saga": "order-saga", "name": "reserve", "undo": undo, **changes}
    return Begin(key=key, run_id=run_id, seq=seq, **given)


def states(log: SagaLog, run_id: str = "r1") -> list[EntryState]:
    return [entry.state for entry in log.of_run(run_id)]


def test_an_entry_is_read_as_it_was_written(log: SagaLog) -> None:
    log.write([begin()])

    (entry,) = log.of_run("r1")
    assert (entry.key, entry.run_id, entry.workflow, entry.saga, entry.name, entry.seq) == (
        "r1/0/s/1", "r1", "orders.complete", "order-saga", "reserve", 1,
    )  # fmt: skip
    assert entry.undo == begin().undo
    assert (entry.state, entry.value, entry.error) == (S.BEGUN, None, None)
    assert entry.created_at == entry.updated_at == START


def test_a_replayed_begin_changes_nothing(log: SagaLog) -> None:
    log.write([begin(), Move(key="r1/0/s/1", state=S.DONE, value="7")])
    before = log.of_run("r1")

    log.write([begin(seq=9, name="other")])

    assert log.of_run("r1") == before


def test_a_move_begins_after_its_entry_whatever_the_order(log: SagaLog) -> None:
    log.write([Move(key="r1/0/s/1", state=S.FAILED, error="boom"), begin()])

    (entry,) = log.of_run("r1")
    assert (entry.state, entry.error, entry.created_at) == (S.FAILED, "boom", START)


@pytest.mark.parametrize(("first", "then"), list(itertools.product(S, S)))
def test_states_only_move_forward(log: SagaLog, first: EntryState, then: EntryState) -> None:
    log.write([begin(), Move(key="r1/0/s/1", state=first)])
    log.write([Move(key="r1/0/s/1", state=then)])

    assert states(log) == [then if then.rank > first.rank else first]


def test_a_saga_that_ended_well_never_hides_an_undo_that_is_owed() -> None:
    assert S.KEPT.rank < S.UNDOING.rank < S.UNDO_FAILED.rank < S.UNDONE.rank


def test_a_move_keeps_what_it_does_not_name(log: SagaLog) -> None:
    log.write([begin(), Move(key="r1/0/s/1", state=S.DONE, value='{"id": 7}')])
    log.write([Move(key="r1/0/s/1", state=S.UNDO_FAILED, error="bank closed")])

    (entry,) = log.of_run("r1")
    assert (entry.value, entry.error) == ('{"id": 7}', "bank closed")
    assert entry.updated_at > entry.created_at


def test_a_move_that_comes_too_late_leaves_the_value(log: SagaLog) -> None:
    log.write([begin(), Move(key="r1/0/s/1", state=S.UNDONE, value="1")])
    log.write([Move(key="r1/0/s/1", state=S.DONE, value="2")])

    assert log.of_run("r1")[0].value == "1"


def test_a_move_without_a_begin_changes_nothing(log: SagaLog) -> None:
    log.write([Move(key="nowhere", state=S.DONE)])

    assert log.open() == []


def test_all_changes_are_written_or_none(log: SagaLog) -> None:
    with pytest.raises(ConfigError, match="order-saga/reserve is not JSON"):
        log.write([begin("a"), begin("b", undo={"args": [object()]})])

    assert log.of_run("r1") == []


def test_a_run_is_read_in_the_order_of_entering(log: SagaLog) -> None:
    log.write([begin("z", seq=1), begin("a", seq=3), begin("m", seq=2), begin("x", run_id="r2")])

    assert [entry.key for entry in log.of_run("r1")] == ["z", "m", "a"]


def test_what_is_owed_is_what_is_neither_undone_nor_skipped_nor_kept(log: SagaLog) -> None:
    log.write([begin(state, seq=n) for n, state in enumerate(S)])
    log.write([Move(key=state, state=state) for state in S])

    assert [entry.state for entry in log.open()] == [
        S.BEGUN, S.UNKNOWN, S.FAILED, S.DONE, S.UNDOING, S.UNDO_FAILED,
    ]  # fmt: skip


def test_what_is_owed_longest_comes_first_and_no_more_than_asked(log: SagaLog) -> None:
    log.write([begin("late", run_id="r2", seq=9)])
    log.write([begin("later", run_id="r1", seq=1)])
    log.write([begin("latest", run_id="r1", seq=2)])

    assert [entry.key for entry in log.open(limit=2)] == ["late", "later"]


def test_nothing_to_write_opens_no_transaction(log: SagaLog) -> None:
    log.write([])

    assert log.open() == []
