"""`receipt`: makes an effect in SQL happen once, however often the step that runs now is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from canvas import current_step
from saga.effects import Receipt, open_receipt


@contextmanager
def receipt(session: Session | Connection, *, undoes: str | None = None) -> Iterator[Receipt]:
    """The receipt of the step that runs now, in the session's transaction.

        with transaction() as session, receipt(session) as r:
            if not r.done:
                session.add(Payment(...))
                r.store(amount)
            return r.value

    A step has one receipt: a second block in it, or in a later run of it, finds `done`. A block that
    raises takes its effect and its receipt back, even if the transaction goes on. A block that ends well
    without `store` leaves a receipt whose value is None.

    Two transactions at once for one key: the second waits until the first has ended.

    Args:
        session: A SQLAlchemy session or connection. The caller commits it.
        undoes: In an undo, the idempotency key of what it undoes. A saga's undo knows it
            (`current_step().undoes`); this is for undos that are called in another way.

    Raises:
        Tombstoned: This step was undone before it ran, so it must have no effect.
        ReceiptMismatch: The key was used with other arguments or by another step.
        ConfigError: Not in a step, or the database has no table of receipts.
    """
    with open_receipt(session, current_step(), undoes=undoes) as r:
        yield r
