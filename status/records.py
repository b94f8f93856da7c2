"""What goes into a transition and what comes out of it, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from status.errors import ConfigError
from status.journals import Journal
from status.tokens import new_token

if TYPE_CHECKING:
    from status.ahead import Ahead

RUN_ID = re.compile(r"[A-Za-z0-9._:@-]{1,200}")
_MESSAGE_ID = re.compile(r"(?P<run>[^/~]+)/(?P<n>\d+)\.(?P<p>\d+u?)~(?P<nonce>[^.~]+)\.(?P<attempt>\d+)")


def check_run_id(run_id: str) -> str:
    """Give `run_id` back if it is one.

    Raises:
        ConfigError: It has other characters, or too many.
    """
    if not RUN_ID.fullmatch(run_id):
        raise ConfigError(f"run id {run_id!r} won't do: 1 to 200 of A-Z a-z 0-9 . _ : @ -")
    return run_id


def key_of_part(run_id: str, place: str, generation: int) -> str:
    """The idempotency key of a part: `order-7/2.1`; once its run was retried, `order-7~1/2.1`."""
    return f"{run_id}~{generation}/{place}" if generation else f"{run_id}/{place}"


def nonce_of(generation: int) -> str:
    """A nonce for a join that is opened in this generation of its run; it tells the generation."""
    made = new_token()[:12]
    return f"{made}g{generation}" if generation else made


class PartRef(NamedTuple):
    """One attempt of one part of one life of a join."""

    run_id: str
    n: int  #: await number
    p: str  #: part; `1u` is the undo of part 1 of a decided join
    nonce: str
    attempt: int

    @property
    def step_id(self) -> str:
        """What people see: `order-7/2.1`."""
        return f"{self.run_id}/{self.n}.{self.p}"

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of the part in one generation of its run."""
        return key_of_part(self.run_id, f"{self.n}.{self.p}", int(self.nonce.partition("g")[2] or 0))

    @property
    def message_id(self) -> str:
        """Celery's task id: new for each attempt and each life, so that a revoked id never comes back."""
        return f"{self.run_id}/{self.n}.{self.p}~{self.nonce}.{self.attempt}"

    @staticmethod
    def parse(message_id: str) -> PartRef | None:
        """Read a Celery task id; None if it is not one of ours."""
        return _parsed(message_id)


@lru_cache(maxsize=64)  # each is asked for a few times in a row
def _parsed(message_id: str) -> PartRef | None:
    found = _MESSAGE_ID.fullmatch(message_id)
    if found is None:
        return None
    return PartRef(found["run"], int(found["n"]), found["p"], found["nonce"], int(found["attempt"]))


class Claim(NamedTuple):
    """Who runs a part: which delivery, on which worker."""

    token: str
    where: str  #: the worker's node name; of a child workflow `>` and its run id
    interruptible: bool

    @property
    def child(self) -> str:
        """The run id of the child workflow that the part is; '' if it is a step."""
        return self.where[1:] if self.where.startswith(">") else ""


def claims_of(flat: Sequence[str]) -> tuple[Claim, ...]:
    """What `loose_claims` of a script gives."""
    return tuple(Claim(token, where, interruptible == "1") for _part, token, where, interruptible in pairs(flat, 4))


class Publishable(NamedTuple):
    """A part whose message is to be sent now."""

    ref: PartRef
    spec: str  #: JSON, as given to `open_join`
    undoes: str  #: the outcome that it undoes, or ''


@dataclass(frozen=True, slots=True)
class Ending:
    """What a transition that ended something says.

    Attributes:
        code: See the script. `decided` owes the run a turn.
        stop: Claims of a decided join, to be stopped where they run.
        publish: Parts that may start now.
        record: The run as the turn it owes will read it, where that was asked for.
        entries: What the decision added to the journal, where that was asked for.
        grant: Of the item of a batch that this process runs next, where it asked for one.
    """

    code: str
    stop: tuple[Claim, ...] = ()
    publish: tuple[Publishable, ...] = ()
    record: RunRecord | None = None
    entries: Mapping[str, str] = field(default_factory=dict)
    grant: Grant | None = None


class NewPart(NamedTuple):
    """A part of a join that is about to be opened."""

    kind: Literal["step", "sleep", "promise", "receive", "child", "canvas"]
    queue: str
    label: str
    spec: str = "{}"
    delay_ms: int = 0
    within_ms: int = 0


class Wanted(NamedTuple):
    """A part that a process runs itself, and the claim on it that it asks for."""

    p: str
    token: str
    where: str  #: the worker's node name
    timeout_ms: int  #: of one attempt, or 0
    retry_in_ms: int  #: how long after that the next one starts, or -1: none


#: A process that asks for none.
NONE_WANTED = Wanted("", "", "", 0, -1)


def claims_wanted(wanted: Sequence[Wanted]) -> tuple[str, str]:
    """Several parts of one join for one process, as `open_join.lua` reads them: the worker, and the claims."""
    if not wanted:
        return "", ""
    return wanted[0].where, " ".join(f"{one.p} {one.token} {one.timeout_ms} {one.retry_in_ms}" for one in wanted)


class NewBatch(NamedTuple):
    """A join that is about to be opened whose parts differ by one argument alone, and of which few run at once.

    Attributes:
        queue: Of a child workflow `>`, and once it is opened the child's run id with % for the part.
        chunks: None of them: the items are in Redis, as the run's input.
        wide: It is a fan-out (see `canvas.wide`): an item is all arguments of a call, and all parts are shown.
    """

    size: int
    window: int
    queue: str
    label: str
    spec: str
    keep: bool
    chunk: int
    chunks: Sequence[str]
    wide: bool = False

    def arguments(self) -> list[str | int]:
        """As `open_join.lua` reads it."""
        keep = "wide" if self.wide else int(self.keep)
        return ["batch", self.size, self.window, self.queue, self.label, self.spec, keep, self.chunk, *self.chunks]


class Remark(NamedTuple):
    """An event that travels with a transition."""

    kind: str
    name: str
    detail: str = ""


class News(NamedTuple):
    """What a turn has to say; applied only by the transition that creates something.

    Attributes:
        status: Phase, progress and the whole metadata (JSON), or None if unchanged.
    """

    status: tuple[str, float, str] | None = None
    remarks: Sequence[Remark] = ()

    def arguments(self) -> list[str | int]:
        """As the scripts read it."""
        flat: list[str | int] = (
            [0] if self.status is None else [3, self.status[0], repr(self.status[1]), self.status[2]]
        )
        flat.append(len(self.remarks))
        for remark in self.remarks:
            flat += remark
        return flat


@dataclass(frozen=True, slots=True)
class Opening:
    """The answer of `open_join`.

    Attributes:
        code: `opened`, `granted`, `answered`, `exists`, `moved`, `foreign` or `gone`.
        nonce: Of the join that is open.
        grants: Of the parts that this process runs itself (`granted`).
        waiting: Part -> attempt, of the parts that nobody has claimed (`exists`; `opened` if some ended at once).
        found: The fingerprint that is there instead (`foreign`), and where it was awaited.
        endings: Of parts that had run before they were granted.
    """

    code: str
    nonce: str = ""
    waiting: Mapping[str, int] = field(default_factory=dict)
    found: str = ""
    found_line: str = ""
    grants: Sequence[Grant] = ()
    endings: Sequence[Ending] = ()


class Grant(NamedTuple):
    """The answer of `begin`: `granted`, or why not. `publish`: parts of a wide join that may start now."""

    code: str
    now_ms: int = 0
    deadline_ms: int = 0
    publish: tuple[Publishable, ...] = field(default=(), kw_only=True)

    @property
    def granted(self) -> bool:
        """Whether the attempt may run."""
        return self.code == "granted"


@dataclass(frozen=True, slots=True)
class OwedTurn:
    """A turn that has not come. `since_ms`: its message was sent by then, if at all."""

    workflow: str
    since_ms: int
    first: bool = False  #: the run has had none: its message may lie behind all others
    queue: str = ""  #: where the run's turns go, as whoever submitted it has it


@dataclass(frozen=True, slots=True)
class OwedPart:
    """A part that nobody has begun. `since_ms`: its message was sent by then, if at all."""

    part: Publishable
    queue: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class DeadClaim:
    """A claim that nobody vouches for."""

    ref: PartRef


@dataclass(frozen=True, slots=True)
class OwedStop:
    """A child that is to be told to stop."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class OwedNews:
    """Parents that are to be told how this run ended."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child has ended.

    Attributes:
        result: JSON; of a child that completed.
        error: JSON; of another.
        tells: The parts of its parents that don't know yet.
    """

    state: str
    result: str
    error: str
    submitted_ms: int
    tells: tuple[PartRef, ...]


#: What the sweep finds due; None: nothing is owed any more.
Owed = OwedTurn | OwedPart | DeadClaim | OwedStop | OwedNews | None


class Lease(NamedTuple):
    """That a turn was the first to come to the end of its journal: no other begins there while it is vouched for.

    Attributes:
        at_ms: When it was given, by Redis' clock.
        at_s: When that was heard, by this process' own.
        asked_s: When it was last asked for: no later than it was given.
    """

    token: str
    at_ms: int
    at_s: float
    asked_s: float

    @classmethod
    def heard(cls, token: str, at_ms: int, asked_s: float) -> Lease:
        """Of a lease that is heard of now."""
        return cls(token, at_ms, monotonic(), asked_s)


class TurnTaken(Exception):  # noqa: N818
    """Another process has the turn that was asked for."""


class RunRecord(NamedTuple):
    """A run and its journal, as a turn reads them.

    Attributes:
        ahead: The end of this journal, if it is not in Redis yet.
        lease: This turn is the first that came to its end, and may go ahead of it.
    """

    run_id: str
    fields: Mapping[str, str]
    journal: Mapping[str, str]
    ahead: Ahead | None = None
    lease: Lease | None = None

    def moved_on(self, nonce: str, entries: Mapping[str, str], ahead: Ahead | None = None) -> RunRecord:
        """The same after its open await was decided, which added `entries` to the journal."""
        journal = self.journal if isinstance(self.journal, Journal) else Journal(self.journal)
        return RunRecord(self.run_id, self._fields_after(nonce), journal.grown(entries), ahead)

    def passed(self, n: int, nonce: str, entries: Mapping[str, str], ahead: Ahead, *, read: Any) -> RunRecord:
        """The same after a turn went through await `n`. Where its journal is this turn's alone, that grows as it is.

        Args:
            read: What is made of the entry (see `Journal`).
        """
        journal = self.journal
        if isinstance(journal, Journal) and journal.own:
            journal.grow(entries)
        else:
            journal = (journal if isinstance(journal, Journal) else Journal(journal)).grown(entries)
            journal.own = True
        journal.read[n] = read
        return RunRecord(self.run_id, self._fields_after(nonce), journal, ahead, self.lease)

    def _fields_after(self, nonce: str) -> Mapping[str, str]:
        state = self.fields["state"]
        return {**self.fields, "seen": nonce, "open": "", "state": "running" if state == "pending" else state}

    @property
    def workflow(self) -> str:
        """The name of its workflow."""
        return self.fields["workflow"]

    @property
    def generations(self) -> Generations:
        """Which generation of the run each of its awaits belongs to."""
        return Generations.of(self.fields) if "gens" in self.fields else FIRST_GENERATION


@dataclass(frozen=True, slots=True)
class Generations:
    """A run that was retried: each retry begins a generation with the await that had failed.

    Attributes:
        starts: The awaits that generations 1, 2, ... began with.
        kept: `await.part` -> the generation of a part that had succeeded in an await that was taken up again.
    """

    starts: tuple[int, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Generations:
        """Read the run hash."""
        starts = tuple(int(start) for start in fields.get("gens", "").split(",") if start)
        pairs_of = (one.rpartition("=") for one in fields.get("kept", "").split())
        return cls(starts, {place: int(generation) for place, _, generation in pairs_of})

    def of_await(self, n: int) -> int:
        """The generation of await `n`; 0 is the first."""
        return max((at for at, start in enumerate(self.starts, 1) if start <= n), default=0)

    def of_part(self, place: str) -> int:
        """The generation of the part at `await.part`."""
        return self.kept.get(place, self.of_await(int(place.partition(".")[0])))


FIRST_GENERATION = Generations()


class Timer(NamedTuple):
    """A timer that is due."""

    kind: str
    run_id: str
    n: str
    p: str
    nonce: str

    @classmethod
    def parse(cls, member: str) -> Timer:
        """Read a member of the timers."""
        kind, run_id, n, p, nonce = member.split("|")
        return cls(kind, run_id, n, p, nonce)


def pairs(flat: Sequence[Any], size: int) -> list[tuple[Any, ...]]:
    """Cut a flat answer of Redis into tuples of `size`."""
    return [tuple(flat[at : at + size]) for at in range(0, len(flat), size)]


def mapping(flat: Any) -> dict[str, str]:
    """A hash, in the shape of either protocol version."""
    return flat if isinstance(flat, dict) else dict(pairs(flat, 2))
