"""Whom the catalogue asks: tables, each behind a local provider that can be told to be slow or to fail.

See `tasks.rehearsal` for how they are told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from canvas import current_step
from saga import schema
from status.errors import TerminalError
from tasks.catalogue_models import ArticleRow, CachedRow, CopyRow, DecisionRow, PersonRow, VisitRow
from tasks.domain import Provider
from tasks.models import Base
from tasks.once import once, reading, writing
from tasks.rehearsal import play

T = TypeVar("T")

_TITLES = TypeAdapter(list[str])

#: The copies of a value, and who answers for each.
COPIES = {"a": Provider.COPY_A, "b": Provider.COPY_B, "c": Provider.COPY_C}


@dataclass(frozen=True)
class Version:
    """A value, and how new it is."""

    number: int
    value: str


def ask(provider: Provider) -> None:
    """Let the provider take its time, and fail as it was told to in this run.

    Raises:
        TerminalError: It refuses.
        ProviderDown: It did not answer; worth another try.
    """
    play(provider, current_step())


def insert_missing(session: Session, rows: Iterable[Base]) -> None:
    """Add the rows that are not there yet."""
    connection = session.connection()
    for row in rows:
        table = Base.metadata.tables[row.__tablename__]
        values = {column.name: getattr(row, column.name) for column in table.columns}
        connection.execute(schema.insert_or_ignore(connection.dialect, table), values)


def person(user_id: str) -> PersonRow:
    """Somebody, by id.

    Raises:
        TerminalError: Nobody has that id (code 404).
    """
    with reading() as session:
        return _found(session.get(PersonRow, user_id), f"there is no user {user_id}")


def article(product_id: str) -> ArticleRow:
    """An article, by id.

    Raises:
        TerminalError: There is none (code 404).
    """
    with reading() as session:
        return _found(session.get(ArticleRow, product_id), f"there is no product {product_id}")


def texts(stored: str) -> list[str]:
    """A list of texts that a column holds as JSON."""
    return _TITLES.validate_json(stored)


def titles_with(words: str) -> list[str]:
    """The titles in which `words` occur, in their order."""
    query = select(ArticleRow.title).where(func.lower(ArticleRow.title).contains(words.lower()))
    with reading() as session:
        return sorted(session.scalars(query))


def cached(query: str) -> list[str]:
    """What was found when the same was asked before.

    Raises:
        TerminalError: It was not (code 404).
    """
    with reading() as session:
        return texts(_found(session.get(CachedRow, query), f"{query!r} is not in the cache").titles)


def copy_of(copy: str, name: str) -> Version:
    """What a copy has.

    Raises:
        TerminalError: It has nothing of that name (code 404).
    """
    with reading() as session:
        row = _found(session.get(CopyRow, (copy, name)), f"copy {copy} has no {name}")
        return Version(row.version, row.value)


def write_copy(copy: str, name: str, version: Version) -> int:
    """Let a copy have a version, if what it has is older. Gives the number that it has then."""
    with writing() as session:
        insert_missing(session, [CopyRow(copy=copy, name=name, version=0, value="")])
        mine = (CopyRow.copy == copy, CopyRow.name == name)
        newer = update(CopyRow).where(*mine, CopyRow.version < version.number)
        session.execute(newer.values(version=version.number, value=version.value))
        return session.execute(select(CopyRow.version).where(*mine)).scalar_one()


def arrive(user_id: str) -> None:
    """Write down that a user of a batch is worked on, and how many are at this moment."""
    step = current_step()
    with writing() as session:
        busy = select(func.count()).where(VisitRow.run_id == step.run_id, VisitRow.ended.is_(False))
        row = VisitRow(
            key=step.idempotency_key,
            run_id=step.run_id,
            user_id=user_id,
            alongside=1 + session.execute(busy).scalar_one(),
            ended=False,
        )
        insert_missing(session, [row])
        # It is there already if this is a second attempt: then it is worked on again.
        session.execute(update(VisitRow).where(VisitRow.key == row.key).values(ended=False))


def leave() -> None:
    """Write down that the user is done with."""
    with writing() as session:
        mine = VisitRow.key == current_step().idempotency_key
        session.execute(update(VisitRow).where(mine).values(ended=True))


def visits(run_id: str) -> Sequence[VisitRow]:
    """All users of a batch that were begun."""
    with reading() as session:
        return session.scalars(select(VisitRow).where(VisitRow.run_id == run_id)).all()


def decide(request_id: str, verdict: str) -> str:
    """Write down what became of a request. Gives the verdict.

    Raises:
        TerminalError: It was decided already, by another run (code 409).
    """

    def write(session: Session, key: str) -> str:
        if session.get(DecisionRow, request_id) is not None:
            raise TerminalError(f"request {request_id} is decided already", code=409)
        session.add(DecisionRow(request_id=request_id, verdict=verdict, key=key))
        return verdict

    return once(str, write)


def verdicts(request_id: str) -> list[str]:
    """What became of a request: nothing yet, or one verdict."""
    with reading() as session:
        return list(session.scalars(select(DecisionRow.verdict).where(DecisionRow.request_id == request_id)))


def as_json(values: Sequence[str]) -> str:
    """A list of texts for a column."""
    return json.dumps(list(values))


def _found(row: T | None, otherwise: str) -> T:
    if row is None:
        raise TerminalError(otherwise, code=404)
    return row
