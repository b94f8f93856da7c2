"""Awaits that a turn went through ahead of the journal: what is recorded, and the events made of it.

One row of a run's events tells of several awaits: a row for each event would be most of what such a run costs Redis.
Its `d` is a JSON list, in the order in which things happened, of

    [kind, name, detail, ms]                                an event
    [n, fingerprint, opened, [[step, began, ended], ...]]   an await whose parts all succeeded; decided with the last

with times in ms after the first of them, which stands before the list: [ms, [...]].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic_core import to_json

from status.models import moment
from status.records import News, RunRecord

#: The kind of such a row.
PASSED = "passed"

#: A row tells of no more awaits, so that the cap on a run's rows is one on its events too.
AWAITS_A_ROW = 8


class PassedPart(NamedTuple):
    """A part that succeeded in the process of its turn.

    Attributes:
        p: Its number.
        what: `queue|label`, as the timeline has it.
        outcome: See `_run.lua`.
        name: The step's, for the events.
    """

    p: str
    what: str
    outcome: str
    began_ms: int
    ended_ms: int
    name: str


class Passage(NamedTuple):
    """An await that a turn went through in its process: all its parts succeeded, and nothing of it is recorded yet.

    Attributes:
        seen: The end of the journal before it.
        by: The token of the part that decided it.
        entry: Of the journal, JSON.
        lease: The token of the turn's.
        told: Called once it is recorded.
        before: The run as it was then.
    """

    n: int
    seen: str
    nonce: str
    by: str
    fingerprint: str
    ended_ms: int
    entry: str
    lease: str
    news: News
    parts: Sequence[PassedPart]
    told: Callable[[], None]
    before: RunRecord | None = None

    @property
    def opened_ms(self) -> int:
        """When its first part began."""
        return min(part.began_ms for part in self.parts)

    def events(self, base_ms: int) -> Iterator[list[Any]]:
        """As a row has them, in ms after `base_ms`."""
        opened = self.opened_ms - base_ms
        for remark in self.news.remarks:
            yield [*remark, opened]
        steps = [[part.name, part.began_ms - base_ms, part.ended_ms - base_ms] for part in self.parts]
        yield [self.n, self.fingerprint, opened, steps]


def arguments(passages: Sequence[Passage]) -> list[str | int]:
    """Awaits that were passed one after the other, as `pass.lua` reads them."""
    first, last = passages[0], passages[-1]
    flat: list[str | int] = [first.n, first.seen, first.nonce, first.by, last.nonce, last.by, last.ended_ms, last.lease]
    statuses: list[str | int] = []
    patched: list[str | int] = []
    journal: list[str | int] = []
    steps: list[str | int] = []
    for passage in passages:
        n = passage.n
        if passage.news.status is not None:
            phase, progress, metadata = passage.news.status
            statuses += (phase, repr(progress), metadata, passage.opened_ms)
        for remark in passage.news.remarks:
            if remark.kind == "run.patched":
                patched += (remark.name, n)
        journal += (n, passage.entry)
        for part in passage.parts:
            place = f"{n}.{part.p}"
            journal += (place, part.outcome)
            steps += (place, part.what, f"{place}:s", f"done|1|{part.began_ms}|{part.ended_ms}")
    for values in (statuses, patched, _rows(passages), journal, steps):
        flat.append(len(values))
        flat += values
    return flat


def _rows(passages: Sequence[Passage]) -> list[str | int]:
    rows: list[str | int] = []
    for at in range(0, len(passages), AWAITS_A_ROW):
        some = passages[at : at + AWAITS_A_ROW]
        base_ms = some[0].opened_ms
        rows.append(to_json([base_ms, [event for passage in some for event in passage.events(base_ms)]]).decode())
    return rows


def told(text: str) -> Iterator[tuple[datetime, str, str, str]]:
    """The events of such a row: when, kind, name and detail of each."""
    base_ms, events = json.loads(text)

    def at(ms: int) -> datetime:
        found = moment(str(base_ms + ms))
        assert found is not None  # noqa: S101  # it is a time
        return found

    for event in events:
        if isinstance(event[0], str):
            kind, name, detail, ms = event
            yield at(ms), kind, name, detail
            continue
        n, fingerprint, opened, steps = event
        yield at(opened), "join.opened", str(n), fingerprint
        for name, began, ended in steps:
            yield at(began), "step.started", name, "1"
            yield at(ended), "step.done", name, ""
        yield at(steps[-1][2]), "join.decided", str(n), "all"
