"""Outcomes that a turn has gone on with before they were recorded: they are, in one script, with what it does next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    """The parts of one await, all run by this process.

    Attributes:
        finishes: What is to be recorded; the last of them decides the join.
        endings: What came of that, once it was tried.
        recorded: The journal has it as it is here.
    """

    finishes: Sequence[Finish]
    endings: Sequence[Ending] = ()
    recorded: bool = False


class GivenBack(NamedTuple):
    """A claim on a part that its holder has not begun."""

    n: int
    p: str
    token: str
