"""What the doctor says of the saga log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from saga import database
from saga import doctor as saga_doctor
from saga.log import Begin, EntryState, Move, SagaLog

VISIT: Any = None


@pytest.fixture
def looked(sql_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes the look at the database of this test."""

    def look(url: str = sql_url) -> list[tuple[str, str, str]]:
        for module in (saga_doctor, database):
            monkeypatch.setattr(module, "places", lambda: SimpleNamespace(database_url=url))
        return [(found.severity.value, found.check, found.seen) for found in saga_doctor.look(VISIT)]

    return look


def test_a_log_that_nobody_has_written_is_well_and_no_file_is_made(looked: Any, sql_url: str):
    found = looked()

    assert [(severity, check) for severity, check, _ in found] == [("ok", "saga.log")]
    if sql_url.startswith("sqlite"):
        assert not Path(sql_url.removeprefix("sqlite:///")).exists()


def test_an_undo_that_gave_up_is_told_with_its_run(looked: Any, sql_url: str):
    keys = ("a", "b", "c")
    begins = [
        Begin(key=key, run_id=f"run-{key}", workflow="w", saga="s", name="n", seq=1, undo={"task": "u"}) for key in keys
    ]
    moves = [Move(key="a", state=EntryState.UNDO_FAILED), Move(key="b", state=EntryState.UNDONE)]
    SagaLog(database.engine(sql_url)).write([*begins, *moves])

    found = looked()

    assert [(severity, check) for severity, check, _ in found] == [("ok", "saga.log"), ("warning", "saga.undo_failed")]
    assert "2 undos may still be needed" in found[0][2]
    assert "1 run (run-a)" in found[1][2]


def test_a_database_that_does_not_answer_is_an_error_without_its_password(looked: Any, monkeypatch: pytest.MonkeyPatch):
    def engine() -> Any:
        raise OperationalError("SELECT 1", None, Exception("connection refused"))

    monkeypatch.setattr(database, "engine", engine)

    [(severity, check, seen)] = looked("postgresql+psycopg://shop:secret@db/shop")

    assert (severity, check) == ("error", "saga.log")
    assert "connection refused" in seen
    assert "secret" not in seen
