"""The log of sagas is gone, locked, read-only or full: nothing starts without its undo in it, nothing is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from canvas import Run, fan_out_fail, undoing, workflow
from saga import Saga, database
from sagas import World, act, create_effects, effects, log_states, owed, refuse, take_back
from status import api
from status.states import FINAL

#: An argument that a file which may not grow has no room for.
PAGES = "-" * 20_000


@workflow(name="sagas.down")
async def down(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a", PAGES).execute(act.s("a"))
        await refuse.s("b")


@workflow(name="sagas.down_late")
async def down_late(run: Run) -> None:
    async with Saga(run, "order") as saga:
        await saga.safe_step("a").with_compensation(take_back, "a").execute(fan_out_fail(act.s("a"), refuse.s("b")))


# --- ways of being down: each a context, and what it says ---------------------------------


@contextmanager
def locked(file: Path) -> Iterator[None]:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


@contextmanager
def pragma(statement: str) -> Iterator[None]:
    database.dispose()
    broken: Callable[..., object] = lambda connection, _: connection.execute(statement)  # noqa: E731
    event.listen(Engine, "connect", broken)
    try:
        yield
    finally:
        event.remove(Engine, "connect", broken)
        database.dispose()


@contextmanager
def read_only(_file: Path) -> Iterator[None]:
    with pragma("PRAGMA query_only = ON"):
        yield


@contextmanager
def full(_file: Path) -> Iterator[None]:
    with pragma("PRAGMA max_page_count = 1"):
        yield


@contextmanager
def gone(file: Path) -> Iterator[None]:
    """Its folder is not there any more: a disk that is not mounted."""
    database.dispose()
    away = file.parent.with_name("unmounted")
    os.rename(file.parent, away)  # noqa: PTH104
    file.parent.write_text("not a folder")
    try:
        yield
    finally:
        file.parent.unlink()
        os.rename(away, file.parent)  # noqa: PTH104
        database.dispose()


WAYS = [locked, read_only, full, gone]


@pytest.fixture
def file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database, in a folder of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()

    class Places:
        database_url = f"sqlite:///{folder}/log.db"

    database.dispose()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(database, "places", Places)
    monkeypatch.setattr("saga.writing.places", Places)
    create_effects()
    return folder / "log.db"


def waits(world: World) -> None:
    """It looks again and again, and says what it waits for."""
    for _ in range(6):
        while world.inbox:
            world.deliver()
        world.sweep()
    status = api.get_status("r")
    assert status.state == "suspended"
    assert status.error is not None
    assert status.error.message.startswith("the saga log at sqlite:///")
    assert "is not reachable: " in status.error.message


@pytest.mark.parametrize("way", WAYS)
def test_no_step_starts_before_its_undo_is_on_record(world: World, file: Path, way: Callable[..., object]) -> None:
    with way(file):  # type: ignore[attr-defined]
        world.submit(down)
        waits(world)
        assert world.bodies == []

    world.go_on()
    assert world.state() == "compensated"
    assert effects() == [("a", 1), ("a", -1)]


def test_an_undo_is_not_made_again_because_it_could_not_be_noted(world: World, file: Path) -> None:
    way = locked(file)
    world.submit(down)
    world.while_it_runs["after undo a"] = way.__enter__
    world.go_on(until=lambda: "r#0" in world.bodies)
    waits(world)
    assert world.bodies.count("r#0") == 1
    way.__exit__(None, None, None)

    world.go_on()
    assert world.state() == "compensated"
    assert world.bodies.count("r#0") == 1
    assert log_states() == {"a": "undone"}


def test_a_late_undo_waits_for_the_log_and_is_not_lost(
    world: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undoing, "PATIENCE_S", 0.1)
    way = locked(file)
    world.submit(down_late)
    world.while_it_runs["a"] = lambda: world.go_on(until=lambda: not world.inbox)
    world.while_it_runs["after undo a"] = way.__enter__
    world.go_on(until=lambda: "r#0" in world.bodies)
    for _ in range(3):
        world.sweep()
    assert world.state() not in FINAL
    way.__exit__(None, None, None)

    world.go_on()
    assert world.state() == "compensated"
    assert effects() == [("a", 1), ("a", -1)]
    assert owed() == []


def test_a_database_file_that_was_deleted_is_noticed(world: World, file: Path) -> None:
    """SQLite would go on writing to the deleted file, where nobody reads it."""
    create_effects()
    shutil.move(file, file.with_name("elsewhere"))

    with pytest.raises(OperationalError, match="is gone, or is another one now"):
        create_effects()
