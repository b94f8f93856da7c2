"""What the catalogue's sources know from the start; fixed, and put there by whoever needs it first."""

from __future__ import annotations

from tasks.catalogue_models import ArticleRow, CachedRow, PersonRow
from tasks.once import writing
from tasks.sources import as_json, insert_missing

PEOPLE = {
    "ada": PersonRow(user_id="ada", email_verified=True, kyc_completed=True, blacklisted=False),
    "bob": PersonRow(user_id="bob", email_verified=False, kyc_completed=True, blacklisted=False),
    "cleo": PersonRow(user_id="cleo", email_verified=True, kyc_completed=True, blacklisted=False),
    "mallory": PersonRow(user_id="mallory", email_verified=True, kyc_completed=True, blacklisted=True),
}

_TITLES = ("Brass lamp", "Desk lamp", "Oil lamp", "Oak desk", "Ash chair", "Reading chair", "Wool rug", "Wall clock")

ARTICLES = {
    f"p-{n}": ArticleRow(
        product_id=f"p-{n}",
        title=title,
        cents=1000 + 250 * n,
        units=3 * n,
        reviews=as_json([f"I like my {title.lower()}"]),
        recommended=as_json([f"p-{n % len(_TITLES) + 1}"]),
    )
    for n, title in enumerate(_TITLES, 1)
}

#: The cache has seen this query, and no other.
CACHED_QUERY = "lamp"


def fill() -> None:
    """Put it there. Safe to repeat, and by several at once."""
    lamps = sorted(title for title in _TITLES if CACHED_QUERY in title)
    with writing() as session:
        insert_missing(session, PEOPLE.values())
        insert_missing(session, ARTICLES.values())
        insert_missing(session, [CachedRow(query=CACHED_QUERY, titles=as_json(lamps))])
