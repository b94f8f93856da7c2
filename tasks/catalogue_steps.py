"""The steps of the catalogue's patterns, and what they talk about. Their workflows are in `tasks.catalogue`."""

from __future__ import annotations

from dataclasses import dataclass

from canvas import Retry, TerminalError, step
from tasks import sources
from tasks.domain import Provider
from tasks.sources import COPIES, Version

QUEUE = "catalogue"
#: Batches have a queue of their own, so that nothing else waits behind them.
BATCH_QUEUE = "batch"
_RETRY = Retry(max_attempts=3, first_s=0.1)

# --- users ----------------------------------------------------------------------


@step(name="users.check_email_verified", queue=QUEUE)
def check_email_verified(user_id: str) -> bool:
    """Whether the address is theirs."""
    return sources.person(user_id).email_verified


@step(name="users.check_kyc_completed", queue=QUEUE, retry=_RETRY, interruptible=True)
def check_kyc_completed(user_id: str) -> bool:
    """Whether somebody has looked at their papers."""
    sources.ask(Provider.KYC)
    return sources.person(user_id).kyc_completed


@step(name="users.check_not_blacklisted", queue=QUEUE, retry=_RETRY)
def check_not_blacklisted(user_id: str) -> bool:
    """True, or an error: a name on that list ends everything at once."""
    sources.ask(Provider.BLACKLIST)
    if sources.person(user_id).blacklisted:
        raise TerminalError(f"{user_id} is on the blacklist", code=403)
    return True


@dataclass(frozen=True)
class ProcessResult:
    """A user that is done."""

    user_id: str


@step(name="users.process_one", queue=BATCH_QUEUE, retry=_RETRY)
def process_user(user_id: str) -> ProcessResult:
    """Do what is to be done for one user; the CRM wants no more than ten of us at a time.

    Raises:
        ProviderDown: The CRM did not answer.
    """
    sources.arrive(user_id)
    try:
        sources.ask(Provider.CRM)
    finally:
        sources.leave()
    return ProcessResult(user_id)


# --- products -------------------------------------------------------------------


@dataclass(frozen=True)
class Details:
    """What an article is."""

    title: str


@dataclass(frozen=True)
class Pricing:
    """What an article costs."""

    cents: int


@dataclass(frozen=True)
class Enriched:
    """All that was to be had of an article; None: its source did not answer."""

    product_id: str
    details: Details | None
    pricing: Pricing | None
    stock: int | None
    reviews: list[str] | None
    recommended: list[str] | None


@step(name="products.fetch_details", queue=QUEUE, retry=_RETRY)
def fetch_details(product_id: str) -> Details:
    """What it is."""
    sources.ask(Provider.DETAILS)
    return Details(sources.article(product_id).title)


@step(name="products.fetch_pricing", queue=QUEUE, retry=_RETRY)
def fetch_pricing(product_id: str) -> Pricing:
    """What it costs."""
    sources.ask(Provider.PRICING)
    return Pricing(sources.article(product_id).cents)


@step(name="products.fetch_inventory", queue=QUEUE, retry=_RETRY)
def fetch_inventory(product_id: str) -> int:
    """How many there are."""
    sources.ask(Provider.UNITS)
    return sources.article(product_id).units


@step(name="products.fetch_reviews", queue=QUEUE, retry=_RETRY)
def fetch_reviews(product_id: str) -> list[str]:
    """What people say of it."""
    sources.ask(Provider.REVIEWS)
    return sources.texts(sources.article(product_id).reviews)


@step(name="products.fetch_recommendations", queue=QUEUE, retry=_RETRY, interruptible=True)
def fetch_recommendations(product_id: str) -> list[str]:
    """What goes with it."""
    sources.ask(Provider.RECOMMENDATIONS)
    return sources.texts(sources.article(product_id).recommended)


# --- data -----------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """The titles that a query found."""

    rows: list[str]


@step(name="data.fetch_primary", queue=QUEUE, interruptible=True)
def fetch_primary(query: str) -> Data:
    """From where it is written."""
    sources.ask(Provider.PRIMARY)
    return Data(sources.titles_with(query))


@step(name="data.fetch_cache", queue=QUEUE, interruptible=True)
def fetch_cache(query: str) -> Data:
    """From what was asked before; a miss is a failure, and so no winner."""
    sources.ask(Provider.CACHE)
    return Data(sources.cached(query))


@step(name="data.fetch_replica", queue=QUEUE, interruptible=True)
def fetch_replica(query: str) -> Data:
    """From a copy of what is written."""
    sources.ask(Provider.REPLICA)
    return Data(sources.titles_with(query))


@step(name="data.read_copy", queue=QUEUE, interruptible=True)
def read_copy(copy: str, name: str) -> Version:
    """What one copy has."""
    sources.ask(COPIES[copy])
    return sources.copy_of(copy, name)


@step(name="data.write_copy", queue=QUEUE)
def write_copy(copy: str, name: str, version: Version) -> int:
    """Let one copy have a version."""
    sources.ask(COPIES[copy])
    return sources.write_copy(copy, name, version)


# --- requests -------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """Something that needs a yes."""

    request_id: str
    patience_s: float = 24 * 3600


@dataclass(frozen=True)
class Approval:
    """What a person says."""

    approved: bool
    by: str = ""


@step(name="requests.escalate", queue=QUEUE)
def escalate(request: Request) -> str:
    """Nobody answered: it is for somebody higher up."""
    return sources.decide(request.request_id, "escalated")


@step(name="requests.carry_out", queue=QUEUE)
def carry_out(request: Request) -> str:
    """Do what was asked for."""
    return sources.decide(request.request_id, "carried out")
