"""The engines: one a process and URL, writers that wait for each other, clear words for a bad URL."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from celery.signals import worker_process_init
from sqlalchemy import create_engine, text

from saga import database, schema
from status.errors import ConfigError


@pytest.fixture
def url(sql_url: str) -> str:
    return sql_url


sqlite_only = pytest.mark.skipif(bool(os.environ.get("TEST_DATABASE_URL")), reason="a rule of SQLite alone")


def test_one_engine_a_url(url: str) -> None:
    assert database.engine(url) is database.engine(url)
    assert database.engine(url) is not database.engine(url + "?")


@sqlite_only
def test_sqlite_is_set_up_for_several_processes(url: str) -> None:
    with database.engine(url).connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }

    assert found == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": 10_000, "foreign_keys": 1}


@sqlite_only
def test_read_then_write_never_meets_a_locked_database(url: str) -> None:
    with database.transaction(url) as session:
        session.execute(text("CREATE TABLE counter (n INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))

    def count_up() -> None:
        for _ in range(50):
            with database.transaction(url) as session:
                n = session.execute(text("SELECT n FROM counter")).scalar_one()
                session.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.session(url) as session:
        assert session.execute(text("SELECT n FROM counter")).scalar_one() == 200


def test_a_reader_does_not_wait_for_a_writer(url: str) -> None:
    with database.transaction(url) as writer:
        writer.execute(text("CREATE TABLE half_done (n INTEGER)"))

        with database.session(url) as reader:
            assert reader.execute(text("SELECT count(*) FROM receipts")).scalar_one() == 0


def test_what_raises_is_rolled_back(url: str) -> None:
    def fail_half_way() -> None:
        with database.transaction(url) as session:
            session.execute(text("CREATE TABLE gone (n INTEGER)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()

    with database.session(url) as session, pytest.raises(Exception, match="gone"):
        session.execute(text("SELECT * FROM gone"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("shop.db", "'shop.db' is not a database URL: write sqlite:////"),
        ("mysql://root:geheim@db/shop", r"'mysql://root:\*\*\*@db/shop' names a mysql database: use sqlite"),
        ("sqlite://", "in memory"),
        ("postgresql+nodriver://db/shop", "needs a driver that is not installed"),
        ("sqlite:////proc/nowhere/shop.db", "/proc/nowhere can't be made"),
    ],
)
def test_a_bad_url_is_told_with_its_remedy(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        database.engine(wrong)


def test_none_is_the_configured_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Configured:
        database_url = f"sqlite:///{tmp_path}/configured.db"

    monkeypatch.setattr(database, "places", Configured)

    assert database.engine() is database.engine(Configured.database_url)


def test_a_forked_child_has_an_engine_of_its_own(url: str) -> None:
    parents = database.engine(url)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child: no assert may raise here, it would go on as a second pytest
        os.write(writer, b"own" if database.engine(url) is not parents else b"shared")
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reader, 10) == b"own"


def test_worker_process_init_forgets_the_engines(url: str) -> None:
    before = database.engine(url)

    worker_process_init.send(sender=None)

    assert database.engine(url) is not before


def _open_at(url: str, barrier: threading.Barrier) -> None:
    barrier.wait(30)
    database.engine(url)


def test_processes_that_start_together_make_the_tables_once(url: str) -> None:
    # Anew: a process that is forked has the locks of threads that are not there.
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(4)
    children = [spawn.Process(target=_open_at, args=(url, barrier)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    assert [child.exitcode for child in children] == [0, 0, 0, 0]


def test_create_all_can_be_repeated(url: str) -> None:
    schema.create_all(database.engine(url))
    schema.create_all(database.engine(url))


def test_only_sqlite_and_postgresql_know_insert_or_ignore() -> None:
    from sqlalchemy.dialects import mysql

    with pytest.raises(ConfigError, match="mysql"):
        schema.insert_or_ignore(mysql.dialect(), schema.receipts)


def test_an_engine_made_elsewhere_can_hold_the_tables(tmp_path: Path) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")

    schema.create_all(other)

    with other.connect() as connection:
        assert connection.execute(schema.receipts.select()).all() == []
