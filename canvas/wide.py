"""Large fan-outs of one step: filed as a batch is, and few of their parts are messages.

The calls of a `fan_out` that differ by their arguments alone need not each be sent: what they have in common is filed
once, and a window of them begins. Whoever ends one is granted the next, where the step is known to be short (see
`canvas.in_place`). The window has no end of its own, as that of a batch has: each message that begins lets more parts
enter, and sends them before its own body runs. So there is always a message for a worker that is idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from canvas.payload import compact
from canvas.perform import took_s
from status.records import NewBatch

if TYPE_CHECKING:
    from canvas.step import Step
    from canvas.waitables import Part, Recipe

#: Fewer parts than this are sent all at once.
LEAST = 33

#: Those that are sent when it is opened.
WINDOW = 32

#: Parts that enter with a message of a long step, of one that may be long, and of a short one. Who runs that goes on
#: with the next parts by itself; but one of them may be long after all, and then another message is to be there. Of the
#: others no fewer than a worker fetches for each step that it runs: what one has fetched is never all there is.
OF_LONG, OF_UNKNOWN, OF_SHORT = 100, 16, 1

#: A step is known to be short by so many runs in this process.
ENOUGH = 2

#: Calls in one element of the list that Redis keeps them in, if they are no longer than so many characters together:
#: the whole element goes with each of its parts.
CHUNK, CHUNK_CHARS = 32, 4096

#: Joins that all parts of may end in any order. (Of a race the parts begin together, or one after the other.)
POLICIES = frozenset({"all", "settle", "quorum"})


def batch_of(recipe: Recipe) -> NewBatch | None:
    """The parts of a join as those of a batch, if they are many and differ by their arguments alone.

    Raises:
        PayloadError: The arguments of a part don't fit.
    """
    parts = recipe.parts
    if len(parts) < LEAST or recipe.policy not in POLICIES:
        return None
    kind = parts[0].kind_of_call
    if kind is None or any(part.kind_of_call != kind for part in parts):
        return None
    items = list(_checked(parts))
    common = parts[0].prepare()
    chunk, chunks = _chunks(items)
    template = compact({"batch": "wide", **parts[0].common_spec})
    return NewBatch(len(parts), WINDOW, common.queue, common.label, template, True, chunk, chunks, wide=True)


def _checked(parts: Sequence[Part[Any]]) -> Iterator[Any]:
    """The arguments of each part. What is the same for all calls of one form is looked at once."""
    seen = set()
    for part in parts:
        args, kwargs = part.arguments
        form = (len(args), *kwargs)
        if form not in seen:
            part.prepare()
            seen.add(form)
        yield (args, kwargs)


def _chunks(items: Sequence[Any]) -> tuple[int, list[str]]:
    """How many calls are in a chunk, and the chunks."""
    chunks = [compact(items[at : at + CHUNK]) for at in range(0, len(items), CHUNK)]
    if max(map(len, chunks)) <= CHUNK_CHARS:
        return CHUNK, chunks
    return 1, [compact([item]) for item in items]


def widens_by(step: Step[Any, Any], *, short_s: float, prefetch: int) -> int:
    """How many more parts may start as one begins in this process.

    Args:
        short_s: Longer than that no short step takes; 0: none is short.
        prefetch: Messages that a worker fetches for each step that it runs.
    """
    runs = took_s[step.name]
    if len(runs) < ENOUGH:
        return max(OF_UNKNOWN, prefetch)
    # Not the longest of them: on a busy machine a step of microseconds may take its process 20 ms.
    return OF_SHORT if median(runs) < short_s else max(OF_LONG, prefetch)
