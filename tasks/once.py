"""How the shop's steps write: each effect once, in one transaction with its receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from canvas import current_step
from saga import database
from saga.effects import Receipt, look, open_receipt
from status.errors import TerminalError
from tasks.models import Base, create_all

T = TypeVar("T")


@contextmanager
def writing() -> Iterator[Session]:
    """A transaction on the shop's tables."""
    create_all(database.engine())
    with database.transaction() as session:
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """A session that only reads the shop's tables and keeps no writer waiting."""
    create_all(database.engine())
    with database.session() as session:
        yield session


@contextmanager
def glance() -> Iterator[Connection]:
    """As `reading`, for a single look that needs no session."""
    create_all(database.engine())
    with database.reading(database.engine()) as connection:
        yield connection


def once(kind: type[T], effect: Callable[[Session, str], T]) -> T:
    """What `effect(session, key)` gives; a second run of the step gives the same and has no effect.

    Args:
        kind: The effect's type, by which a stored value is read.
        effect: Writes through the session, nothing else; `key` is the step's idempotency key.

    Raises:
        Tombstoned: The step was undone before it ran.
    """
    step = current_step()
    # The receipt on the connection: an error ends the whole transaction here, so the session need not keep
    # track of the receipt's savepoint, which is slow.
    with writing() as session, open_receipt(session.connection(), step) as r:
        if r.done:
            return TypeAdapter(kind).validate_python(r.value)
        value = effect(session, step.idempotency_key)
        r.store(value)
        return value


def earlier(kind: type[T]) -> T | None:
    """What an earlier run of this step gave; None if there was none.

    Raises:
        Tombstoned: The step was undone before it ran, so it must not call anybody.
    """
    with glance() as connection:
        r = look(connection, current_step())
    return None if r is None else TypeAdapter(kind).validate_python(r.value)


def undo_once(effect: Callable[[Session, Receipt], None]) -> None:
    """Undo in one transaction, once; if the action never ran, see that it never will.

    Args:
        effect: Gets `r.undoes`, the key of what it undoes, and must bear that there is nothing to undo.
    """
    with writing() as session, open_receipt(session.connection(), current_step()) as r:
        if not r.done:
            effect(session, r)


def add(session: Session, row: Base, *, already: str) -> None:
    """Insert a row that may exist once.

    Args:
        already: What to say when the database refuses it.

    Raises:
        TerminalError: It exists already (code 409).
    """
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise TerminalError(already, code=409) from error


def derived_id(prefix: str, key: str) -> str:
    """An id that the same step gives again each time it runs."""
    return f"{prefix}-{sha256(key.encode()).hexdigest()[:20]}"
