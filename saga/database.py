"""The one way to SQL: engines for SQLite and PostgreSQL, set up so that several processes may share a file.

An engine is made when a process first asks for it, never before it forks: an engine shared by forked
workers mixes their answers up, silently.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from celery.signals import worker_process_init
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from saga import schema
from status.errors import ConfigError
from status.places import on_change, places, without_password

#: How long a writer waits for SQLite's one write lock. Transactions here take milliseconds; who waits
#: ten seconds has met a process that hangs in one.
BUSY_TIMEOUT_S = 10

#: Who connects to a PostgreSQL that says nothing for so long is told that it is not there.
CONNECT_TIMEOUT_S = 5

_READ_ONLY = "celeriac_read_only"
_FILE = "celeriac_file"
_engines: dict[tuple[int, str], Engine] = {}
_opening = threading.Lock()


def engine(url: str | None = None) -> Engine:
    """The engine of a database, with the saga's tables in it. One a process and URL.

    Args:
        url: `sqlite:////path/file.db` or `postgresql+psycopg://…`; None: the configured one.

    Raises:
        ConfigError: The URL can't be read, names another kind of database, or its driver is not installed.
    """
    wanted = url if url is not None else places().database_url
    # By process id too: a child that was forked without Celery's signal must not use its parent's sockets.
    where = (os.getpid(), wanted)
    with _opening:
        found = _engines.get(where)
        if found is None:
            found = _open(_parsed(wanted))
            schema.create_all(found)
            _engines[where] = found
    return found


def is_missing(url: str) -> bool:
    """Whether this names a file of SQLite that is not there. Who only looks should not make one."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in {None, "", ":memory:"}:
        return False
    return not Path(str(parsed.database)).exists()


def check_there() -> None:
    """Refuse to look at a log that is not there.

    Raises:
        ConfigError: No file of SQLite is where the configured one should be.
    """
    url = places().database_url
    if is_missing(url):
        raise ConfigError(
            f"there is no saga log at {without_password(url)}: no saga has begun there, or DATABASE_URL names "
            "another place"
        )


@contextmanager
def transaction(url: str | None = None) -> Iterator[Session]:
    """A session in one transaction: committed at the end of the block, rolled back when it raises.

    On SQLite it holds the write lock from its first line to its last: keep waiting (HTTP, SMTP) out of it.
    """
    with Session(engine(url), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def session(url: str | None = None) -> Iterator[Session]:
    """A session for reading: sees one moment of the database and keeps no writer waiting."""
    with reading(engine(url)) as connection, Session(connection) as reader:
        yield reader


@contextmanager
def reading(bind: Engine) -> Iterator[Connection]:
    """A connection for reading: on SQLite it takes no write lock."""
    with bind.execution_options(**{_READ_ONLY: True}).connect() as connection:
        yield connection


def dispose_after_fork(**_signal: Any) -> None:
    """Forget the parent's connections without closing them: their sockets are still the parent's."""
    global _opening  # noqa: PLW0603 - another thread of the parent may have held it at the fork
    _opening = threading.Lock()
    _forget(close=False)


def dispose() -> None:
    """Close all connections of this process. The next `engine()` opens the database anew."""
    with _opening:
        _forget(close=True)


def _forget(*, close: bool) -> None:
    for opened in _engines.values():
        opened.dispose(close=close)
    _engines.clear()


worker_process_init.connect(dispose_after_fork, weak=False)
on_change.append(dispose)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(
            f"DATABASE_URL={without_password(url)!r} is not a database URL: write "
            "sqlite:////absolute/path/file.db or postgresql+psycopg://user:password@host/name"
        ) from error
    shown = parsed.render_as_string()  # without its password
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError(
            f"DATABASE_URL={shown!r} names a {parsed.get_backend_name()} database: use sqlite:////… or "
            "postgresql+psycopg://…"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigError(
            f"DATABASE_URL={shown!r} is a database in memory, which no other process can see: "
            "write sqlite:////absolute/path/file.db"
        )
    return parsed


def _open(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    try:
        # Workers are idle for hours; the ping finds a connection that a firewall has cut meanwhile.
        return create_engine(url, pool_pre_ping=True, connect_args=_patience(url))
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(
            f"DATABASE_URL={url.render_as_string()!r} needs a driver that is not installed ({error}): "
            "pip install 'psycopg[binary]' and write postgresql+psycopg://…"
        ) from error


def _patience(url: URL) -> dict[str, Any]:
    by_libpq = url.get_driver_name() in {"psycopg", "psycopg2"} and "connect_timeout" not in url.query
    return {"connect_timeout": CONNECT_TIMEOUT_S} if by_libpq else {}


def _open_sqlite(url: URL) -> Engine:
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"DATABASE_URL={url.render_as_string()!r}: the folder {folder} can't be made ({error.strerror}): "
            "name one that this user may write to"
        ) from error
    opened = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(opened, "connect", _set_up_sqlite)
    event.listen(opened, "begin", _begin_sqlite)
    return opened


def _set_up_sqlite(connection: Any, record: Any) -> None:
    record.info[_FILE] = _file_of(connection)
    # None: Python's driver then begins nothing by itself, and `_begin_sqlite` alone decides.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _write_ahead(connection: Any) -> None:
    # Of processes that turn a new file to WAL at the same moment, SQLite refuses all but one at once,
    # whatever busy_timeout says.
    end_s = monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if monotonic() > end_s:
                raise
            sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later can't be given the lock when another has written
    # meanwhile: "database is locked", however long it would wait. So writers take the lock at once.
    only_reads = connection.get_execution_options().get(_READ_ONLY, False)
    begin = "BEGIN" if only_reads else "BEGIN IMMEDIATE"
    driver: Any = connection.connection.driver_connection
    _check_there(connection)
    try:
        # Past SQLAlchemy, for which a statement is a good part of what a short transaction costs.
        driver.execute(begin)
    except sqlite3.Error as error:
        raise OperationalError(begin, None, error) from error


def _file_of(connection: Any) -> tuple[str, int, int]:
    """The path of a SQLite database, and its device and inode."""
    path = str(connection.execute("PRAGMA database_list").fetchone()[2])
    there = Path(path).stat()
    return path, there.st_dev, there.st_ino


def _check_there(connection: Connection) -> None:
    # In WAL mode SQLite goes on writing to a file that was deleted or moved, where nobody will read it.
    path, device, inode = connection.connection.info[_FILE]
    try:
        there = os.stat(path)  # noqa: PTH116  # at each transaction: a Path costs more than the call
    except OSError:
        there = None
    if there is None or (there.st_dev, there.st_ino) != (device, inode):
        error = sqlite3.OperationalError(f"the database file {path} is gone, or is another one now")
        raise OperationalError("BEGIN", None, error)
