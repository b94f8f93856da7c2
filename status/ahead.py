"""Outcomes that a turn has gone on with before they were recorded: they are, in one script, with what it does next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from status import passages
from status.passages import Passage
from status.records import NONE_WANTED, Ending, PartRef, Wanted

Kind = Literal["done", "failed", "retry"]

#: What `finish` gives of a decision: nothing, `all` the run with its journal, or the entries of a join of so many
#: parts.
Gives = str | int


class Finish(NamedTuple):
    """What came of an attempt, as `finish.lua` takes it.

    Attributes:
        outcome: See `_run.lua`.
        ended_ms: None: when it is recorded.
        wanted: The item of a batch that this process runs next.
    """

    ref: PartRef
    token: str
    kind: Kind
    outcome: str
    began_ms: int
    retry_in_ms: int = 0
    line: str = ""
    gives: Gives = ""
    name: str = ""
    wanted: Wanted = NONE_WANTED
    ended_ms: int | None = None

    def arguments(self) -> list[str | int]:
        """As the script reads it."""
        ref = self.ref
        flat: list[str | int] = [ref.n, ref.p, ref.nonce, ref.attempt, self.token, self.kind, self.outcome]
        flat += (self.retry_in_ms, self.began_ms, self.line, self.gives, self.name, *self.wanted)
        flat.append("" if self.ended_ms is None else self.ended_ms)
        return flat


@dataclass(slots=True)
class Ahead:
    """What a turn has gone on with, and Redis has not: the parts of one await, or awaits that it went through.

    Not one after the other: a cancel may decide an open await otherwise, and then nothing after it should have run.

    Attributes:
        finishes: Of an await that is open, run by this process: the last of them decides it.
        passages: Or awaits that were never open.
        since_s: From when on, by this process' clock.
        endings: What came of the finishes, once they were to be recorded.
        recorded: The journal has it as it is here.
        stops: And the run is to stop: what comes next must be opened.
    """

    finishes: Sequence[Finish] = ()
    passages: Sequence[Passage] = ()
    since_s: float = 0.0
    endings: Sequence[Ending] = ()
    recorded: bool = False
    stops: bool = False

    def transitions(self) -> list[tuple[str, list[str | int]]]:
        """In their order: names and arguments."""
        if self.passages:
            return [("pass", passages.arguments(self.passages))]
        return [("finish", finish.arguments()) for finish in self.finishes]

    def passed(self, passage: Passage) -> Ahead:
        """One await further."""
        return Ahead((), [*self.passages, passage], self.since_s)

    def tell(self) -> None:
        """It is recorded: let out what was said on the way."""
        for passage in self.passages:
            passage.told()


class GivenBack(NamedTuple):
    """A claim on a part that its holder has not begun."""

    n: int
    p: str
    token: str
