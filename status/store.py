"""The transitions of a run: one typed method for each Lua script. Nobody else calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, cast

from redis import Redis

from status.ahead import Ahead, Finish, Gives, Kind
from status.errors import ConfigError, RunConflict, RunNotFound
from status.grace import Grace
from status.journals import Journal, Journals
from status.keys import Keys
from status.records import (
    NONE_WANTED,
    Ending,
    Grant,
    Lease,
    NewBatch,
    NewPart,
    News,
    Opening,
    PartRef,
    RunRecord,
    TurnTaken,
    Wanted,
    check_run_id,
    claims_of,
    claims_wanted,
    mapping,
    pairs,
)
from status.scripts import Scripts
from status.settings import Settings
from status.store_ahead import AheadTransitions
from status.store_children import ChildTransitions
from status.store_input import InputTransitions, upload_gone
from status.store_lives import LivesTransitions
from status.store_operator import OperatorTransitions
from status.store_promises import PromiseTransitions
from status.store_rounds import RoundTransitions
from status.store_sweep import SweepTransitions


class Store(
    SweepTransitions,
    AheadTransitions,
    OperatorTransitions,
    PromiseTransitions,
    RoundTransitions,
    LivesTransitions,
    ChildTransitions,
    InputTransitions,
):
    """Runs, in Redis.

    Args:
        redis: A client with `decode_responses=True`.
        settings: How many shards, how long runs are kept, how many lives a part has.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis = redis
        self.settings = settings
        self.keys = Keys(settings.shards)
        self._scripts = Scripts(redis, self.keys)
        self.grace = Grace(self._scripts, self.keys)
        self.journals = Journals(settings.journals_mb * 1024 * 1024)

    def _call(self, name: str, run_id: str, *args: Any, meanwhile: Callable[[], object] | None = None) -> Any:
        return self._scripts.call(name, self.keys.of_run(run_id), args, meanwhile)

    def connect(self, within_s: float) -> None:
        """Connect this thread now rather than at its first transition.

        Raises:
            RedisError: Redis does not answer.
        """
        self._scripts.connect(within_s)

    def check_layout(self) -> None:
        """Refuse a number of shards other than the one this Redis was first used with.

        Raises:
            ConfigError: They differ; runs would be looked for where they are not.
        """
        shards = self.settings.shards
        # Read first: a Redis that takes no writes can still be looked at.
        if self.redis.get(Keys.layout()) is None and self.redis.set(Keys.layout(), shards, nx=True):
            return
        there = int(cast("str", self.redis.get(Keys.layout())))
        if there != shards:
            raise ConfigError(
                f"this Redis holds runs on {there} shards, CELERIAC_SHARDS says {shards}: set it to {there}"
            )

    # --- a run --------------------------------------------------------------------

    def submit(
        self,
        run_id: str,
        *,
        workflow: str,
        input_json: str,
        digest: str,
        token: str,
        timeout_ms: int = 0,
        retention_ms: int | None = None,
        turn_queue: str = "",
        staged: str = "",
        pieces: int = 0,
        trace: str = "",
    ) -> bool:
        """Create a run and owe it a turn; the same id with the same `digest` again changes nothing.

        Args:
            turn_queue: For those who go on with the run and do not know its workflow.
            staged: The token of an upload of so many `pieces` that is (part of) its input; see `stage`.

        Returns:
            Whether this call made it; if so, its first turn is to be published.

        Raises:
            RunConflict: The id is taken by another workflow or other arguments.
            ConfigError: The id is malformed.
            StoreUnavailable: The upload has been forgotten meanwhile; nothing was submitted.
        """
        keep_ms = retention_ms or self.settings.retention_s * 1000
        answer = self._call(
            "submit",
            check_run_id(run_id),
            workflow,
            input_json,
            digest,
            token,
            timeout_ms,
            keep_ms,
            "",
            turn_queue,
            staged,
            pieces,
            trace,
        )
        if answer[0] == "unstaged":
            raise upload_gone(run_id)
        if answer[0] == "conflict":
            raise RunConflict(
                f"run id {run_id!r} is taken by a run ({answer[1]}) of another workflow or with other arguments: "
                "choose another id, or give the same arguments to get that run"
            )
        return bool(answer[0] == "created")

    def load(self, run_id: str) -> RunRecord | None:
        """A run and its journal, or None if there is no such run."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.hgetall(self.keys.run(run_id))
        pipe.hgetall(self.keys.journal(run_id))
        fields, journal = pipe.execute()
        return RunRecord(run_id, fields, Journal(journal)) if fields.get("workflow") else None

    def load_to_go_on(self, run_id: str, *, lease: str = "") -> RunRecord | None:
        """The same for a turn: it reads what this process has not read before. See `read.lua`.

        Args:
            lease: The token of the lease that it would have, as the first that comes to the journal's end.

        Raises:
            TurnTaken: Another process has this turn.
        """
        known, asked_s = self.journals.get(run_id), monotonic()
        now, *more = self._call("read", run_id, known.mark if known else "", lease)
        if now == "busy":
            raise TurnTaken(run_id)
        run, added, *in_part = more
        fields = mapping(run)
        if not fields.get("workflow"):
            return None
        journal = self.journals.read(run_id, fields, mapping(added), known if in_part else None)
        return RunRecord(run_id, fields, journal, lease=Lease.heard(lease, int(now), asked_s) if int(now) else None)

    def open_join(
        self,
        run_id: str,
        n: int,
        *,
        seen: str,
        nonce: str,
        fingerprint: str,
        policy: str,
        parts: Sequence[NewPart] = (),
        batch: NewBatch | None = None,
        need: int = 0,
        state: str = "running",
        undo: bool = False,
        timeout_ms: int = 0,
        wanted: Sequence[Wanted] = (),
        news: News | None = None,
        line: str = "",
        ahead: Ahead | None = None,
        late: Sequence[Finish] = (),
        meanwhile: Callable[[], object] | None = None,
    ) -> Opening:
        """Open await `n` and file its parts, if the journal still ends with `seen`. See `open_join.lua`.

        Args:
            wanted: The parts that this process runs itself.
            line: Where it is awaited (file:line), for people.
            ahead: See `advance`.
            late: What came of the wanted parts, which have run already; recorded if they are granted.
            meanwhile: Called while Redis works, perhaps more than once.
        """
        what = f"{fingerprint}\n{line}"
        args: list[Any] = [n, seen, nonce, what, policy, need, state, int(undo), timeout_ms, *claims_wanted(wanted)]
        args += (news or News()).arguments()
        if batch is not None:
            args += batch.arguments()
        for part in parts:
            args += (part.kind, part.delay_ms, part.within_ms, part.queue, part.label, part.spec)
        endings: list[Ending] = []
        if late:
            answer, endings = self.open_late(ahead, run_id, args, late)
        else:
            answer = self._after(ahead, run_id, "open_join", args, meanwhile)
        return self._opening(nonce, answer, endings)

    @staticmethod
    def _opening(nonce: str, answer: Sequence[Any] | None, endings: Sequence[Ending]) -> Opening:
        if answer is None:
            return Opening("moved", nonce)
        if answer[0] == "granted":
            now_ms = int(answer[1])
            grants = [Grant("granted", now_ms, int(ends)) for ends in answer[2:]]
            return Opening("granted", nonce, grants=grants, endings=endings)
        if answer[0] == "exists":
            return Opening("exists", answer[1], {p: int(attempt) for p, attempt in pairs(answer[2:], 2)})
        if answer[0] == "foreign":
            return Opening("foreign", nonce, found=answer[1], found_line=answer[2])
        return Opening(answer[0], nonce, {p: int(attempt) for p, attempt in pairs(answer[1:], 2)})

    def complete(
        self,
        run_id: str,
        *,
        seen: str,
        token: str,
        state: str,
        result: str = "",
        error: str = "",
        news: News | None = None,
        ahead: Ahead | None = None,
    ) -> str:
        """End the run, if its journal still ends with `seen`.

        Args:
            ahead: See `advance`.

        Returns:
            `completed` (by this token), `moved` or `gone`.
        """
        args = [seen, token, state, result, error, *(news or News()).arguments()]
        answer = self._after(ahead, run_id, "complete", args)
        if answer is None or answer[0] == "moved":
            return "moved"
        self.journals.forget(run_id)
        return str(answer[0])

    def cancel(self, run_id: str, reason: str, *, token: str, code: int = 409, by: str = "") -> Ending:
        """Decide the open await, or else the next one, as cancelled. See `cancel.lua`.

        Args:
            by: The operator who asks, for the history; '': a program.

        Raises:
            RunNotFound: There is no such run.
        """
        answer = self._call("cancel", run_id, reason, code, token, "", 0, by)
        if answer[0] == "gone":
            raise RunNotFound(run_id)
        stop = answer[1] if answer[0] == "decided" else []
        return Ending(answer[0], claims_of(stop))

    def park(self, run_id: str, *, seen: str, error: str, look_in_ticks: int = 10) -> bool:
        """Let the run wait for other code, with `error` (JSON) set."""
        return bool(self._call("park", run_id, seen, error, look_in_ticks))

    # --- a part -------------------------------------------------------------------

    def begin(
        self,
        ref: PartRef,
        *,
        token: str,
        where: str,
        interruptible: bool = False,
        timeout_ms: int = 0,
        retry_in_ms: int = -1,
        name: str = "",
        widens_by: int = 0,
    ) -> Grant:
        """Ask for the claim on a part. See `begin.lua` for the answers.

        Args:
            widens_by: Of a wide join: how many more of its parts may start now.
        """
        answer = self._call(
            "begin",
            ref.run_id,
            ref.n,
            ref.p,
            ref.nonce,
            ref.attempt,
            token,
            where,
            int(interruptible),
            timeout_ms,
            retry_in_ms,
            name,
            widens_by,
        )
        publish = tuple(part for row in answer[3:] for part in self._publishable(ref.run_id, ref.n, row))
        now_ms, deadline_ms, *_ = (*map(int, answer[1:3]), 0, 0)
        return Grant(answer[0], now_ms, deadline_ms, publish)

    def finish(
        self,
        ref: PartRef,
        *,
        token: str,
        kind: Kind,
        outcome: str,
        began_ms: int,
        retry_in_ms: int = 0,
        line: str = "",
        name: str = "",
        gives: Gives = "",
        wanted: Wanted = NONE_WANTED,
    ) -> Ending:
        """Record what came of an attempt. See `finish.lua` for the answers.

        Args:
            gives: What is given of a decision.
            wanted: The item of a batch that this process runs next.
        """
        finish = Finish(ref, token, kind, outcome, began_ms, retry_in_ms, line, gives, name, wanted)
        return self.record([finish])[0]

    def release(self, ref: PartRef, *, token: str, call_token: str, outcome: str) -> Ending:
        """Take back a claim whose attempt never said how it ended.

        Args:
            token: The claim's; '' for a claim that nobody vouches for any more.
            outcome: The part's, once its lives are used up.
        """
        answer = self._call(
            "release", ref.run_id, ref.n, ref.p, ref.nonce, token, self.settings.max_lives, outcome, call_token
        )
        return self._ending(ref.run_id, ref.n, answer)

    def vouch(self, run_id: str, claims: Iterable[tuple[int, str, str]]) -> int:
        """Renew the claims (await, part, token) of one run; how many of them still stand."""
        return int(self._call("vouch", run_id, *[value for claim in claims for value in claim]))

    def stopped(self, ref: PartRef) -> bool:
        """Whether nobody waits for this attempt: the join was decided, the part ended, or its time was up."""
        # Not over a connection of the pool: this is asked from within a step, which may be interrupted just then.
        next_attempt = self._scripts.ask("HGET", self.keys.join(ref.run_id, ref.n), f"a{ref.p}")
        ended = self._scripts.ask("HMGET", self.keys.journal(ref.run_id), str(ref.n), f"{ref.n}.{ref.p}")
        return int(next_attempt or 1) > ref.attempt or (any(ended) and not ref.p.endswith("u"))
