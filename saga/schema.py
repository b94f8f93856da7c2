"""The SQL tables of sagas: receipts of effects, and the log of what is owed.

They live in the user's own database, so that a receipt can be written in the same transaction as the
effect it stands for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    Engine,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator

from status.errors import ConfigError

#: Any number, the same in every process: who creates tables holds this lock of PostgreSQL.
_CREATING = 0x63656C65726961


class Utc(TypeDecorator[datetime]):
    """A moment. SQLite keeps no time zone, so what is read from it is marked as the UTC it was written in."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; a moment without a zone is refused by `astimezone`'s caller, not guessed."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ConfigError(f"{value!r} has no time zone: pass datetime.now(UTC)")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """From the database, always with its zone."""
        del dialect
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


metadata = MetaData()

receipts = Table(
    "receipts",
    metadata,
    Column("key", String(300), primary_key=True),
    Column("step", String(200), nullable=False),
    Column("arguments_digest", String(128), nullable=False),
    Column("value", Text, nullable=True),
    Column("tombstone", Boolean, nullable=False),
    Column("created_at", Utc, nullable=False),
)

saga_log = Table(
    "saga_log",
    metadata,
    Column("key", String(300), primary_key=True),
    Column("run_id", String(200), nullable=False),
    Column("workflow", String(200), nullable=False),
    Column("saga", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("undo", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("value", Text, nullable=True),
    Column("error", Text, nullable=True),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Index("ix_saga_log_run", "run_id", "seq"),
    Index("ix_saga_log_owed", "rank", "created_at"),
)


def create_all(bind: Engine, tables: MetaData = metadata) -> None:
    """Create the tables that are missing. Safe to repeat, and by several processes at once.

    Args:
        bind: The database.
        tables: Other tables than the saga's own, made in the same safe way.
    """
    with bind.begin() as connection:
        # "create if it is not there" is two steps: without a lock two processes that start together
        # both see nothing, and the second fails. SQLite's BEGIN IMMEDIATE is such a lock already.
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATING})
        tables.create_all(connection)


def insert_or_ignore(dialect: Dialect, table: Table) -> Insert:
    """An INSERT that leaves a row with the same primary key as it is.

    Raises:
        ConfigError: The database is neither SQLite nor PostgreSQL.
    """
    match dialect.name:
        case "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        case "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        case other:
            raise ConfigError(f"DATABASE_URL names a {other} database: use SQLite or PostgreSQL")
