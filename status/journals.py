"""Journals as turns read them, and those of long runs that this process has read before.

A turn needs all of its run's journal, and most of it is what the turn before needed. So a process keeps what it has
read, and asks for what came after: it says what the last entry is that it has. Where Redis has that very entry (nonce,
who decided it, and when), all before it is as it was: an entry is only ever added on top of those that there are, and
what a crash of Redis takes is the end. After a retry, or in another round, that entry is gone or is another, and the
whole journal is given.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

#: A journal with fewer fields is read as fast whole.
LEAST_FIELDS = 64

#: What a field takes in a process beside its text: two strings, a place in a dict, and what was made of it.
FIELD_BYTES = 600


class Journal(dict[str, str]):
    """The journal of a run: entries of awaits and outcomes of parts, and what was made of them by who read them.

    Attributes:
        read: Await -> what was made of its entry; as long as the journal is kept it is not made again.
        plain: Await -> the same of one whose value nobody can change, with that value.
        own: It is one turn's alone: nobody else goes by it.
    """

    __slots__ = ("last", "own", "plain", "read", "weight")

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(fields)
        self.read: dict[int, Any] = {}
        self.plain: dict[int, Any] = {}
        #: Of one that may be kept: its last entry, and what it takes in memory.
        self.last, self.weight = -1, 0
        self.own = False

    def grown(self, more: Mapping[str, str]) -> Journal:
        """The same with what was added since. Who goes by this one does not see it."""
        new = Journal(self)
        new.read, new.plain = self.read.copy(), self.plain.copy()
        new.last, new.weight = self.last, self.weight
        new.grow(more)
        return new

    def grow(self, more: Mapping[str, str]) -> None:
        """Take in what was added since."""
        self.update(more)
        self.last = max(self.last, _last_of(more))
        self.weight += _weight_of(more)

    def settled(self, first: int) -> Journal:
        """The same as far as it will stay as it is: without outcomes of an await that is still open.

        Args:
            first: The await that the round of the run began with; what is left of those before it has gaps.
        """
        last = _last_of(self)
        others = [field for field in self if not first <= _await_of(field) <= last]
        kept = Journal({field: self[field] for field in self.keys() - others}) if others else self
        last = last if last >= first else -1
        kept.last, kept.weight = last, _weight_of(kept)
        return kept

    @property
    def mark(self) -> str:
        """What Redis is asked by: `await|its entry`, the last one that is here."""
        return f"{self.last}|{self[str(self.last)]}"


class Journals:
    """The journals that a process keeps: of long runs, those used last.

    Args:
        most_bytes: What they may take in memory, about.
        least_fields: Shorter ones are not kept.
    """

    def __init__(self, most_bytes: int, least_fields: int = LEAST_FIELDS) -> None:
        self._most_bytes, self._least_fields = most_bytes, least_fields
        self._kept: OrderedDict[str, Journal] = OrderedDict()
        self._lock = threading.Lock()
        self.weight = 0

    def get(self, run_id: str) -> Journal | None:
        """What is kept of a run's journal."""
        with self._lock:
            journal = self._kept.get(run_id)
            if journal is not None:
                self._kept.move_to_end(run_id)
            return journal

    def read(
        self, run_id: str, run: Mapping[str, str], fields: Mapping[str, str], known: Journal | None = None
    ) -> Journal:
        """What a turn goes by; of that is kept what may be asked for again.

        Args:
            run: The run's hash.
            fields: All of the journal; or what was added to what is `known`.
        """
        journal = Journal(fields) if known is None else known.grown(fields)
        if len(journal) < self._least_fields or not self._most_bytes:
            return journal
        kept = journal.settled(int(run.get("first") or 0)) if known is None else journal
        with self._lock:
            self._drop(run_id)
            if kept.last >= 0 and kept.weight <= self._most_bytes:
                self._kept[run_id] = kept
                self.weight += kept.weight
            while self.weight > self._most_bytes:
                self._drop(next(iter(self._kept)))
        return journal

    def forget(self, run_id: str) -> None:
        """The run has ended, or begins anew."""
        with self._lock:
            self._drop(run_id)

    def _drop(self, run_id: str) -> None:
        journal = self._kept.pop(run_id, None)
        self.weight -= journal.weight if journal is not None else 0


def _await_of(field: str) -> int:
    """The await that a field is about: `12`, `12.0`, `12.late`, `12:order`."""
    return int(field.partition(".")[0].partition(":")[0])


def _last_of(fields: Mapping[str, str]) -> int:
    return max((int(field) for field in fields if field.isdigit()), default=-1)


def _weight_of(fields: Mapping[str, str]) -> int:
    return sum(len(field) + len(text) for field, text in fields.items()) + FIELD_BYTES * len(fields)
