"""The catalogue's tables, beside the shop's: people, articles and their copies, accounts, jobs."""

from __future__ import annotations

from sqlalchemy import BigInteger, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models import Base, Keyed


class PersonRow(Base):
    """Somebody who wants to be let in."""

    __tablename__ = "catalogue_people"

    user_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    email_verified: Mapped[bool]
    kyc_completed: Mapped[bool]
    blacklisted: Mapped[bool]


class ArticleRow(Base):
    """What five sources know of an article; `reviews` and `recommended` are lists, as JSON."""

    __tablename__ = "catalogue_articles"

    product_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    cents: Mapped[int]
    units: Mapped[int]
    reviews: Mapped[str] = mapped_column(Text)
    recommended: Mapped[str] = mapped_column(Text)


class CachedRow(Base):
    """The answer to a query that was asked before: titles, as a JSON list."""

    __tablename__ = "catalogue_cache"

    query: Mapped[str] = mapped_column(String(200), primary_key=True)
    titles: Mapped[str] = mapped_column(Text)


class CopyRow(Base):
    """What one of three copies has of a named value."""

    __tablename__ = "catalogue_copies"

    copy: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    version: Mapped[int]
    value: Mapped[str] = mapped_column(Text)


class VisitRow(Base):
    """A user of a batch who is, or was, worked on."""

    __tablename__ = "catalogue_visits"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(200), index=True)
    user_id: Mapped[str] = mapped_column(String(200))
    #: How many of the run were worked on when this one began, itself among them.
    alongside: Mapped[int]
    ended: Mapped[bool] = mapped_column(default=False)


class DecisionRow(Keyed, Base):
    """What became of a request: it is decided once."""

    __tablename__ = "catalogue_decisions"

    request_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    verdict: Mapped[str] = mapped_column(String(40))


class AccountRow(Base):
    """Money. Only `book` changes it, with an entry for each change."""

    __tablename__ = "catalogue_accounts"

    account_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    opening_cents: Mapped[int] = mapped_column(BigInteger)
    cents: Mapped[int] = mapped_column(BigInteger)
    closed: Mapped[bool] = mapped_column(default=False)


class EntryRow(Keyed, Base):
    """One change of one account, for one transfer."""

    __tablename__ = "catalogue_entries"

    entry_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    account_id: Mapped[str] = mapped_column(String(200), index=True)
    tx_id: Mapped[str] = mapped_column(String(200), index=True)
    cents: Mapped[int] = mapped_column(BigInteger)


class StatisticRow(Keyed, Base):
    """A transfer as the analysts see it."""

    __tablename__ = "catalogue_statistics"

    entry_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    tx_id: Mapped[str] = mapped_column(String(200), unique=True)
    cents: Mapped[int] = mapped_column(BigInteger)


class ArtefactRow(Base):
    """What a stage of a job has made, for the next one to read."""

    __tablename__ = "catalogue_artefacts"
    __table_args__ = (UniqueConstraint("job_id", "stage"),)

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(200))
    stage: Mapped[str] = mapped_column(String(40))
    content: Mapped[str] = mapped_column(Text)
