"""What open pages show, kept beside each of them to tell what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from status.browsing import Row, Wanted
from status.errors import RunNotFound
from status.flower.feed import Send
from status.flower.source import Source
from status.reading import encode_cursor

#: Where no index has just the runs that are wanted, so many of the newest are looked through each second.
LOOKED_THROUGH = 500

#: After so many looks without an event a run is read again: what a saga's log says comes a moment after its event.
AGAIN_LOOKS = (2, 5, 15)

#: One that goes on is read so often whatever happens: a worker's note has no event.
QUIET_LOOKS = 5


class ListView:
    """A page of the list.

    Args:
        cursor: None: the first page, to which new runs come.
        also: Runs that the page has found by a longer search than the feed makes.
        send: Called with each message, in the feed's thread.
    """

    def __init__(self, wanted: Wanted, limit: int, cursor: str | None, send: Send, *, also: Sequence[str] = ()) -> None:
        self._wanted = wanted
        self._also = also
        self._limit = limit
        self._cursor = cursor
        self._send = send
        self._rows: dict[str, Row] = {}
        self._order: list[str] = []
        self._others: set[str] = set()  #: of another workflow: need not be looked at again

    @property
    def run_ids(self) -> set[str]:
        return set(self._rows)

    def begin(self, source: Source) -> None:
        listing = source.browser.page(self._wanted, limit=self._limit, cursor=self._cursor)
        also = source.browser.rows(self._also).values()
        found = {row.run_id: row for row in [*listing.rows, *also] if self._wanted.has(row)}
        rows = sorted(found.values(), key=lambda row: row.place, reverse=True)[: self._limit]
        self._rows = {row.run_id: row for row in rows}
        self._order = list(self._rows)
        self._tell(source, rows)

    def changed(self, source: Source, run_ids: set[str]) -> None:
        found = source.browser.rows(sorted(run_ids))
        rows = [row for run_id, row in found.items() if run_id in self._rows and self._rows[run_id] != row]
        self._rows |= {row.run_id: row for row in rows}
        if rows:
            self._tell(source, rows)

    def look(self, source: Source, totals: dict[str, Any]) -> None:
        new = [] if self._cursor else self._new(source)
        self._rows |= {row.run_id: row for row in new}
        # On a later page what was there stays there: rows that vanish under one's eyes help nobody.
        kept = [row for row in self._rows.values() if self._cursor or self._wanted.has(row)]
        kept.sort(key=lambda row: row.place, reverse=True)
        self._rows = {row.run_id: row for row in kept[: self._limit]}
        told = [row for row in new if row.run_id in self._rows]
        before, self._order = self._order, list(self._rows)
        if told or before != self._order:
            self._tell(source, told)
        self._send({"totals": totals})

    def trouble(self, text: str) -> None:
        self._send({"trouble": text})

    def _new(self, source: Source) -> list[Row]:
        number = LOOKED_THROUGH if self._wanted.looks_through else self._limit
        places = list(islice(source.browser.places(self._wanted), number))
        self._others &= {place.run_id for place in places}
        unknown = [
            place.run_id
            for place in places
            if place.run_id not in self._rows and place.run_id not in self._others and self._wanted.has_id(place.run_id)
        ]
        mine = source.browser.of_workflow(self._wanted.workflow, unknown)
        self._others |= set(unknown) - set(mine)
        return [row for row in source.browser.rows(mine).values() if self._wanted.has(row)]

    def _tell(self, source: Source, rows: Any) -> None:
        full = len(self._order) == self._limit
        # What follows this page as it is now: new runs have moved others on to the next.
        after = encode_cursor(self._rows[self._order[-1]].place) if full else None
        self._send({"rows": [source.row(row) for row in rows], "order": self._order, "cursor": after})


class RunView:
    """The page of one run.

    Args:
        version: Of what the page has read already.
        send: Called with each message, in the feed's thread.
    """

    def __init__(self, run_id: str, version: str, send: Send) -> None:
        self._run_id = run_id
        self._version = version
        self._send = send
        self._told: dict[str, Any] = {}
        self._quiet = 0

    @property
    def run_ids(self) -> set[str]:
        return {self._run_id}

    def begin(self, source: Source) -> None:
        self._told = {}
        self.changed(source, self.run_ids)
        self._version = ""  # when it begins anew, what the page has is not known

    def changed(self, source: Source, run_ids: set[str]) -> None:
        if run_ids:
            self._quiet = 0
            self._read(source)

    def _read(self, source: Source) -> None:
        try:
            model = source.run(self._run_id)
        except RunNotFound:
            self._send({"gone": True})
            return
        news = {} if model["version"] == self._version else difference(self._told, model)
        self._told = model
        if news.keys() - {"now_ms", "version"}:
            self._send(news)

    def look(self, source: Source, totals: dict[str, Any]) -> None:
        self._quiet += 1
        goes_on = bool(self._told) and not self._told["head"]["final"]
        if self._quiet in AGAIN_LOOKS or (goes_on and self._quiet % QUIET_LOOKS == 0):
            self._read(source)
        self._send({"now_ms": totals["now_ms"]})

    def trouble(self, text: str) -> None:
        self._send({"trouble": text})


def difference(told: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """What a page must be told of a run that knows what it was told before.

    Of awaits and of their parts only those that have changed are in it; `numbers` has all awaits that there are.
    """
    news = {
        name: value for name, value in model.items() if name not in {"awaits", "events"} and value != told.get(name)
    }
    before = {one["n"]: one for one in told.get("awaits", ())}
    awaits = [_changed(before.get(one["n"]), one) for one in model["awaits"] if before.get(one["n"]) != one]
    if awaits or len(before) != len(model["awaits"]):
        news |= {"awaits": awaits, "numbers": [one["n"] for one in model["awaits"]]}
    if told.get("events") != model["events"]:
        known = told.get("events", [])
        # Events are only added, or the oldest are dropped: then all are told again.
        same = model["events"][: len(known)] == known
        news |= {
            "events": model["events"][len(known) :] if same else model["events"],
            "events_anew": not same or not known,
        }
    return news | {"now_ms": model["now_ms"]}


def _changed(before: dict[str, Any] | None, one: dict[str, Any]) -> dict[str, Any]:
    if before is None:
        return one
    known = {part["place"]: part for part in before["parts"]}
    parts = [part for part in one["parts"] if known.get(part["place"]) != part]
    return {**one, "parts": parts, "places": [part["place"] for part in one["parts"]]}
