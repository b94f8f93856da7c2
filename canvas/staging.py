"""Puts the items of a batch into Redis as they come, before its run is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from redis.exceptions import RedisError

from status.records import NewBatch

if TYPE_CHECKING:
    from canvas.batch import Batch
    from status.store import Store

#: Of the items that go to Redis in one call: pieces at most, and characters about.
PIECES, PIECES_CHARS = 64, 256 * 1024

#: Whoever waits long for the next item sends what is there, so that Redis knows that the upload goes on.
PIECES_S = 60.0


@dataclass(frozen=True)
class Upload:
    """The items of a batch, in Redis.

    Attributes:
        batch: As it is filed.
        digest: Of the items.
    """

    token: str
    batch: NewBatch
    pieces: int
    digest: str


@contextmanager
def uploaded(store: Store, run_id: str, batch: Batch) -> Iterator[Upload]:
    """Upload the items of a batch. Forgotten at the end of the block, unless a run has been made of them.

    Never more than a few thousand items are in this process' memory, if they come from an iterator.

    Raises:
        PayloadError: An item doesn't fit the step's argument.
        StoreUnavailable: What was sent is no longer there.
        RedisError: Redis does not answer.
    """
    token = uuid4().hex
    try:
        yield _upload(store, run_id, token, batch)
    finally:
        with suppress(RedisError):  # it ends by itself, a little later
            store.unstage(run_id, token)


def _upload(store: Store, run_id: str, token: str, batch: Batch) -> Upload:
    items = batch.once()
    first = list(islice(items, 1))
    if not first:
        return Upload(token, NewBatch(0, batch.window, "", "", "{}", batch.keep, 1, ()), 0, "")
    new = batch.filed(first[0], 0, ())
    sha, sent, held, sent_s = sha256(), 0, list[str](), monotonic()
    for piece in batch.chunks(chain(first, items)):
        sha.update(piece.encode())
        held.append(piece)
        if len(held) >= PIECES or sum(map(len, held)) >= PIECES_CHARS or monotonic() - sent_s > PIECES_S:
            store.stage(run_id, token, sent, held)
            sent, held, sent_s = sent + len(held), [], monotonic()
    if held:
        store.stage(run_id, token, sent, held)
    return Upload(token, new._replace(size=batch.size), sent + len(held), sha.hexdigest())
