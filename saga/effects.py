"""Receipts: an effect in SQL happens once, however often its step runs.

The receipt is a row in the user's own transaction, so effect and receipt are committed together or not at
all. An undo leaves a tombstone in the place of a receipt that was never written: should the action wake up
late, it meets the tombstone and has no effect.

    Tombstoned (TerminalError)       from `receipt()` in an action that was undone before it ran
    ReceiptMismatch (TerminalError)  from `receipt()`: the key belongs to another step or other arguments
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import Connection, Row, select, update
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from saga.schema import insert_or_ignore, receipts
from status.errors import ConfigError, PayloadError, TerminalError

#: PostgreSQL's "undefined table".
_NO_TABLE = "42P01"


class Tombstoned(TerminalError):  # noqa: N818
    """The step was undone before it had its effect, so it must not have it any more. Its code is 409."""


class ReceiptMismatch(TerminalError):  # noqa: N818
    """The key of this receipt was used by another step or with other arguments. Its code is 409."""


class Owner(Protocol):
    """Whose receipt it is: what `canvas.current_step()` tells."""

    @property
    def step_name(self) -> str: ...
    @property
    def idempotency_key(self) -> str: ...
    @property
    def arguments_digest(self) -> str: ...
    @property
    def undoes(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """An `Owner` for code outside of a step: a script, a test."""

    step_name: str
    idempotency_key: str
    arguments_digest: str = ""
    undoes: str | None = None


class Receipt:
    """What is known of an earlier run of this step.

    Attributes:
        done: Whether an earlier run had its effect: then have none, and return `value`.
        value: What that run stored, as plain JSON values; else None.
        undoes: In an undo: the key of what it undoes.
        acted: In an undo: whether the action had its effect. If not, it never will.
        action: In an undo: what the action stored, as plain JSON values; else None.
        text: What this run has stored, as it goes to the database.
    """

    def __init__(self, *, done: bool, value: Any, undoes: str | None, acted: bool, action: Any) -> None:
        self.done = done
        self.value = value
        self.undoes = undoes
        self.acted = acted
        self.action = action
        self.text: str | None = None

    def store(self, value: Any) -> None:
        """Keep what the step returns: anything that is JSON, dataclasses, models, decimals and dates too.

        Raises:
            PayloadError: The value can't be written as JSON.
        """
        try:
            self.text = to_json(value).decode()
        except PydanticSerializationError as error:
            raise PayloadError(f"r.store got {value!r}, which is not JSON: {error}") from error
        self.value = json.loads(self.text)


@contextmanager
def open_receipt(session: Session | Connection, owner: Owner, *, undoes: str | None = None) -> Iterator[Receipt]:
    """The receipt of `owner`, in the session's transaction; `saga.receipt` is this for the step that runs.

    Raises:
        Tombstoned: The owner was undone before it ran.
        ReceiptMismatch: The key was used with other arguments or by another step.
        ConfigError: The database has no table of receipts.
    """
    undoes = undoes if undoes is not None else owner.undoes
    # A savepoint: when the block raises, what it did and its receipt go together.
    with session.begin_nested():
        found = _claim(session, owner)
        acted, action = _bury(session, owner, undoes) if undoes is not None else (False, None)
        r = Receipt(done=found is not None, value=_loaded(found), undoes=undoes, acted=acted, action=action)
        yield r
        if r.text is not None:
            own = receipts.c.key == owner.idempotency_key
            session.execute(update(receipts).where(own).values(value=r.text))


def look(session: Session | Connection, owner: Owner) -> Receipt | None:
    """The receipt of an earlier run, if there is one; writes nothing, so it may be a session for reading.

    For steps that call the outside before they write: one that had its effect need not call again.

    Raises:
        Tombstoned: The owner was undone before it ran.
        ReceiptMismatch: The key was used with other arguments or by another step.
    """
    row = session.execute(select(receipts).where(receipts.c.key == owner.idempotency_key)).one_or_none()
    if row is None:
        return None
    value = _loaded(_checked(row, owner))
    return Receipt(done=True, value=value, undoes=owner.undoes, acted=False, action=None)


def _claim(session: Session | Connection, owner: Owner) -> Row[Any] | None:
    """Write this step's receipt; the row of an earlier run, if there is one."""
    # Before the effect and not after it: a second transaction stops here, at the unique key, until the
    # first has committed (then it finds its receipt) or not (then it may have the effect itself).
    if _inserted(session, owner, key=owner.idempotency_key, tombstone=False):
        return None
    return _checked(_row(session, owner.idempotency_key), owner)


def _checked(row: Row[Any], owner: Owner) -> Row[Any]:
    if row.tombstone:
        raise Tombstoned(
            f"{owner.step_name} ({owner.idempotency_key}) was undone by {row.step} before it ran: it has no effect now",
            code=409,
        )
    # An undo may be called again by `saga resume`, which knows less of what the action gave: its key is enough.
    other = owner.undoes is None and row.arguments_digest != owner.arguments_digest
    if other or row.step != owner.step_name:
        raise ReceiptMismatch(
            f"the key {owner.idempotency_key} belongs to {row.step} with arguments {row.arguments_digest!r}, "
            f"not to {owner.step_name} with {owner.arguments_digest!r}: use one key for one call",
            code=409,
        )
    return row


def _bury(session: Session | Connection, owner: Owner, undoes: str) -> tuple[bool, Any]:
    """Whether the action had its effect and what it stored; if it had none, see that it never will."""
    if _inserted(session, owner, key=undoes, tombstone=True):
        return False, None
    row = _row(session, undoes)
    return not row.tombstone, _loaded(row)


def _inserted(session: Session | Connection, owner: Owner, *, key: str, tombstone: bool) -> bool:
    connection = session.connection() if isinstance(session, Session) else session
    row = {
        "key": key,
        "step": owner.step_name,
        "arguments_digest": owner.arguments_digest,
        "value": None,
        "tombstone": tombstone,
        "created_at": datetime.now(UTC),
    }
    try:
        # By the key it gives and not by a count of rows: not every driver counts an INSERT.
        insert = insert_or_ignore(connection.dialect, receipts).returning(receipts.c.key)
        return connection.execute(insert, row).scalar() is not None
    except (OperationalError, ProgrammingError) as error:
        if getattr(error.orig, "sqlstate", "") != _NO_TABLE and "no such table" not in str(error.orig):
            raise
        raise ConfigError("this database has no table of receipts: call saga.schema.create_all(engine) once") from error


def _row(session: Session | Connection, key: str) -> Row[Any]:
    return session.execute(select(receipts).where(receipts.c.key == key)).one()


def _loaded(row: Row[Any] | None) -> Any:
    return None if row is None or row.value is None else json.loads(row.value)
