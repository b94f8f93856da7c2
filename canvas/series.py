"""Parts of one await that are run where their turn is, one after the other.

What a part gave is kept until the workflow has gone on, and is recorded in one script with what it does next: one round
trip an await. Until then nothing of it counts. If the process dies, its claims die with it, and the parts run again, as
they do when it dies a moment before it records what they gave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pydantic_core import from_json

from canvas import granted
from canvas.payload import compact
from canvas.perform import Here
from status.ahead import Ahead, Finish, GivenBack
from status.records import Grant, PartRef, RunRecord, Wanted

if TYPE_CHECKING:
    from canvas.call import Call
    from canvas.in_place import Chosen
    from canvas.replay import Asks
    from canvas.step import Step

#: Policies whose parts may be run one after the other: they wait for each other anyway.
PATIENT = frozenset({"all", "settle"})


class Performed(NamedTuple):
    """What came of the parts that were run here.

    Attributes:
        record: The run once its await is decided; None: it is not, or by somebody else.
        rest: The parts that are still to be sent.
    """

    record: RunRecord | None = None
    rest: Sequence[int] = ()


class Series:
    """The parts of one await that this process asks for, and is granted all at once.

    Attributes:
        nonce: Of the await.
        wanted: The claims on them.
    """

    def __init__(self, chosen: Chosen, record: RunRecord, asks: Asks, nonce: str) -> None:
        self._by, self._record, self._asks, self.nonce = chosen.by, record, asks, nonce
        self.wanted = chosen.wanted
        self._specs: dict[str, Any] = {}
        self._said: dict[str, str] = {}
        self._todo: deque[tuple[Wanted, Grant]] = deque()
        self._kept: list[Finish] = []
        self._since_s = 0.0

    def prepare(self) -> None:
        """Read what would be in their messages, while Redis decides whose they are."""
        for wanted in self.wanted:
            # Read anew: the step may change its arguments, and the workflow may have them still.
            self._specs[wanted.p] = from_json(self._asks.parts[int(wanted.p)].spec)
            self._said[wanted.token] = granted.said_of(self._ref(wanted), self._step(wanted).name)

    def granted(self, grants: Sequence[Grant]) -> None:
        """They are this process', and the worker vouches for them from now on."""
        self._since_s = monotonic()
        self._todo.extend(zip(self.wanted, grants, strict=True))
        self._hold()

    def run(self) -> Performed:
        """Run them, as long as there is time and nothing has decided their await."""
        while self._todo and (not self._kept or self._by.left_s() > 0):
            here = self._one()
            if here.kept is not None:
                self._kept.append(here.kept)
                continue
            self._kept = []  # they were recorded with it
            performed = self._recorded(here)
            if performed is not None:
                return performed
        self._hold()  # if the process dies now, none of them was the cause
        if len(self._kept) == self._asks.recipe.size and self._asks.recipe.policy in PATIENT:
            return Performed(self._ahead())
        return self._catch_up()

    def _ref(self, wanted: Wanted) -> PartRef:
        return PartRef(self._record.run_id, self._asks.n, wanted.p, self.nonce, 1)

    def _step(self, wanted: Wanted) -> Step[Any, Any]:
        call = cast("Call[Any]", self._asks.recipe.parts[int(wanted.p)])
        return cast("Step[Any, Any]", call.definition)

    def _given_back(self) -> list[GivenBack]:
        return [GivenBack(self._asks.n, wanted.p, wanted.token) for wanted, _ in self._todo]

    def _hold(self, running: str = "") -> None:
        """Let the worker know of the claims, and which of them is of the step that runs now."""
        self._by.holding.hold(self._said, running)

    def _one(self) -> Here:
        wanted, grant = self._todo.popleft()
        step = self._step(wanted)
        here = Here(wanted.token, grant, self._since_s, self._asks.recipe.size)
        # One that must not run twice is recorded as soon as it has run.
        here.keeps = "done" if step.idempotent else ""
        here.before = self._kept
        here.unbegun = self._given_back() if self._asks.recipe.policy == "all" else ()
        self._hold(wanted.token)
        self._by.run(self._ref(wanted), self._specs[wanted.p], self._record.workflow, here)
        return here

    def _recorded(self, here: Here) -> Performed | None:
        """What follows from an ending that was recorded at once; None: the next part."""
        if here.ending is None:
            return Performed()  # Redis is away for long: what is left is due
        if here.ending.code == "decided":
            return Performed(self._record.moved_on(self.nonce, here.ending.entries))
        if here.gave_back:
            return Performed(None, self._rest())
        if here.ending.code not in ("recorded", "retrying"):
            self._give_back()
            return Performed()  # nobody waits for the others any more
        return None

    def _give_back(self) -> None:
        """Give back what it has not begun, if there is any."""
        given_back, engine, run_id = self._given_back(), self._by.engine, self._record.run_id
        if given_back:
            ending = engine.patiently(lambda: engine.store.give_back(run_id, given_back))
            engine.follow_others(run_id, [ending] if ending else [])

    def _rest(self) -> list[int]:
        return [int(wanted.p) for wanted, _ in self._todo]

    def _ahead(self) -> RunRecord:
        """The run as it is once what was kept is recorded."""
        return self._record.moved_on(self.nonce, self._entries(), Ahead(self._kept, since_s=monotonic()))

    def _entries(self) -> dict[str, str]:
        """What the journal has once all of it is recorded."""
        n, last = str(self._asks.n), self._kept[-1]
        entry = {"v": "all", "i": "", "at": last.ended_ms, "x": self.nonce, "by": last.token, "s": len(self._kept)}
        entry |= {"fp": self._asks.recipe.fingerprint, "l": self._asks.line}
        return {n: compact(entry)} | {f"{n}.{finish.ref.p}": finish.outcome for finish in self._kept}

    def _catch_up(self) -> Performed:
        """Record what was kept, and give back what there was no time for."""
        given_back, rest, engine, run_id = self._given_back(), self._rest(), self._by.engine, self._record.run_id
        if not self._kept:
            self._give_back()
            return Performed(None, rest)
        self._kept[-1] = self._kept[-1]._replace(gives=self._asks.recipe.size)
        endings = engine.patiently(lambda: engine.store.record(self._kept, given_back))
        if endings is None:
            return Performed()
        last = endings[-1]
        engine.follow_others(run_id, endings[:-1])
        engine.go_on(run_id, last, self._record.workflow)
        if last.code == "decided":
            return Performed(self._record.moved_on(self.nonce, last.entries))
        return Performed(None, rest if last.code == "recorded" else ())
