"""One run on a real Redis without workers: a test does one transition and looks at what is there."""

# ruff: noqa: S107, a token here is no password
from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import redis

from status.records import Ending, NewPart, PartRef, Timer
from status.settings import Settings
from status.store import Store

ERROR = 'e{"step":"s","error_type":"ValueError","message":"no","code":500}'
UNKNOWN = 'u{"error_type":"OutcomeUnknown","message":"its process died","code":500}'
UNDO = {"task": "undo", "args": [], "kwargs": {}, "queue": "q", "label": "undo", "takes_value": True}


def part(*, after_ms: int = 0, within_ms: int = 0, undo: bool = False, once: bool = False) -> NewPart:
    """A step of a join."""
    spec: dict[str, Any] = {"task": "s", "args": [], "kwargs": {}, "queue": "q", "label": "s"}
    spec |= {"undo": UNDO} if undo else {}
    spec |= {"once": True} if once else {}
    return NewPart("step", "q", "s", json.dumps(spec), after_ms, within_ms)


class Runs:
    """The transitions of run `r`, each by few words.

    Args:
        client: Of an empty Redis, with decoded answers.
    """

    def __init__(self, client: redis.Redis, *, run_id: str = "r", **settings: int) -> None:
        self.redis = client
        self.store = Store(client, Settings(**{"shards": 4, **settings}))
        self.keys = self.store.keys
        self.id = run_id
        self.shard = self.keys.shard_of(run_id)
        self._number = count()

    def saved(self) -> dict[str, tuple[bytes, int]]:
        """All of Redis, for `restored`."""
        with redis.Redis(connection_pool=_undecoded(self.redis)) as raw:
            return {key: (raw.dump(key), raw.pttl(key)) for key in self.redis.keys("*")}

    def restored(self, saved: dict[str, tuple[bytes, int]]) -> None:
        """What a Redis has that was restarted without its last second."""
        self.redis.flushdb()
        with redis.Redis(connection_pool=_undecoded(self.redis)) as raw:
            for key, (dumped, ttl_ms) in saved.items():
                raw.restore(key, max(0, ttl_ms), dumped)

    # --- doing --------------------------------------------------------------------

    def submit(self, *, token: str = "submit", digest: str = "d", **more: Any) -> bool:
        return self.store.submit(self.id, workflow="w", input_json="[[],{}]", digest=digest, token=token, **more)

    def open(self, *parts: NewPart, policy: str = "all", n: int = 0, seen: str | None = None, **more: Any) -> str:
        """Open await `n` with nonce `n<n>`. Gives the code."""
        return self.opening(*parts, policy=policy, n=n, seen=seen, **more).code

    def opening(self, *parts: NewPart, policy: str = "all", n: int = 0, seen: str | None = None, **more: Any) -> Any:
        before = f"n{n - 1}" if n else ""
        options = {"nonce": f"n{n}", "fingerprint": f"{policy}({len(parts)})", **more}
        return self.store.open_join(
            self.id, n, seen=before if seen is None else seen, policy=policy, parts=parts, **options
        )

    def started(self, *parts: NewPart, **more: Any) -> Runs:
        """Submit, and open await 0 with these parts."""
        self.submit()
        assert self.open(*parts, **more) == "opened"
        return self

    def ref(self, p: int | str = 0, n: int = 0, attempt: int = 1, nonce: str | None = None) -> PartRef:
        return PartRef(self.id, n, str(p), nonce or f"n{n}", attempt)

    def begin(self, p: int | str = 0, token: str = "a", *, n: int = 0, attempt: int = 1, **more: Any) -> str:
        ref = self.ref(p, n, attempt, more.pop("nonce", None))
        return self.store.begin(ref, token=token, where="w1", **more).code

    def finish(
        self,
        kind: str,
        p: int | str = 0,
        token: str = "a",
        *,
        n: int = 0,
        attempt: int = 1,
        **more: Any,
    ) -> Ending:
        outcome = more.pop("outcome", "v1" if kind == "done" else ERROR)
        ref = self.ref(p, n, attempt, more.pop("nonce", None))
        return self.store.finish(ref, token=token, kind=kind, outcome=outcome, began_ms=1, **more)

    def done(self, p: int | str = 0, token: str = "a", **more: Any) -> str:
        return self.finish("done", p, token, **more).code

    def fail(self, p: int | str = 0, token: str = "a", **more: Any) -> str:
        return self.finish("failed", p, token, **more).code

    def retry(self, p: int | str = 0, token: str = "a", **more: Any) -> str:
        return self.finish("retry", p, token, retry_in_ms=60_000, **more).code

    def release(self, p: int | str = 0, token: str = "", *, n: int = 0, call: str = "") -> Ending:
        call_token = call or f"release{next(self._number)}"
        return self.store.release(self.ref(p, n, 0), token=token, call_token=call_token, outcome=UNKNOWN)

    def fire(self, kind: str, p: int | str = "", n: int | str = 0, token: str = "") -> Ending:
        """Let a timer be due and fire it."""
        timer = Timer(kind, self.id, str(n), str(p), f"n{n}" if n != "" else "")
        self.redis.zadd(self.keys.timers(self.shard), {"|".join(timer): 1}, xx=True)
        return self.store.fire(timer, token=token or f"fire{next(self._number)}")

    def fire_only(self) -> Ending:
        """Let the only timer be due and fire it."""
        name = self.keys.timers(self.shard)
        (row,) = self.redis.zrange(name, 0, -1)
        self.redis.zadd(name, {row: 1})
        return self.store.fire(Timer.parse(row), token=f"fire{next(self._number)}")

    def cancel(self, token: str = "", reason: str = "enough", code: int = 409) -> Ending:
        return self.store.cancel(self.id, reason, token=token or f"cancel{next(self._number)}", code=code)

    def complete(self, *, seen: str, state: str = "completed", token: str = "end", **more: Any) -> str:
        return self.store.complete(self.id, seen=seen, token=token, state=state, **more)

    def settle(self, n: int) -> str:
        """Open await `n` as the settle that a rollback begins with."""
        return self.open(n=n, policy="settled", undo=True, state="compensating")

    def tick(self, by: int) -> None:
        self.redis.incrby(self.keys.tick(self.shard), by)

    # --- looking ------------------------------------------------------------------

    def field(self, name: str) -> str | None:
        return self.redis.hget(self.keys.run(self.id), name)

    @property
    def state(self) -> str | None:
        return self.field("state")

    def decision(self, n: int = 0) -> tuple[str, str] | None:
        """Verdict and index of await `n`."""
        text = self.redis.hget(self.keys.journal(self.id), str(n))
        entry = json.loads(text) if text else None
        return (entry["v"], str(entry["i"])) if entry else None

    def outcome(self, p: int | str = 0, n: int = 0) -> str | None:
        return self.redis.hget(self.keys.journal(self.id), f"{n}.{p}")

    def late(self) -> dict[str, str]:
        return self.redis.hgetall(self.keys.late(self.id))

    def due(self) -> set[str]:
        """What is due, without the run's id: '' is its turn."""
        return {
            member.removeprefix(self.id).lstrip("/") for member in self.redis.zrange(self.keys.due(self.shard), 0, -1)
        }

    def timers(self) -> set[str]:
        """`kind p` of each timer."""
        rows = (Timer.parse(row) for row in self.redis.zrange(self.keys.timers(self.shard), 0, -1))
        return {f"{timer.kind} {timer.p}".strip() for timer in rows}

    def loose(self) -> int:
        return int(self.field("loose") or 0)

    def joined(self, n: int = 0) -> bool:
        return bool(self.redis.exists(self.keys.join(self.id, n)))

    def events(self) -> list[str]:
        return [fields["k"] for _, fields in self.redis.xrange(self.keys.events(self.id))]

    def step_state(self, p: int | str = 0, n: int = 0) -> str:
        return (self.redis.hget(self.keys.steps(self.id), f"{n}.{p}:s") or "waiting|").split("|")[0]

    def everything(self) -> dict[str, Any]:
        """All of Redis, but for which server each shard was met on, and how long things took."""
        keys = sorted(key for key in self.redis.scan_iter("*") if not key.endswith(":server"))
        found = {key: dump(self.redis, key) for key in keys}
        return {key: counted(value) if key.endswith(":counts") else value for key, value in found.items()}


def counted(counts: dict[str, str]) -> dict[str, int]:
    """How many of each are counted, however long they took."""
    totals: dict[str, int] = {}
    for field, number in counts.items():
        what, _, bucket = field.rpartition("|")
        if bucket != "ms":
            totals[what] = totals.get(what, 0) + int(number)
    return totals


def dump(client: redis.Redis, key: str) -> Any:
    """The value of a key, whatever its type."""
    match client.type(key):
        case "hash":
            return client.hgetall(key)
        case "zset":
            return client.zrange(key, 0, -1, withscores=True)
        case "list":
            return client.lrange(key, 0, -1)
        case "set":
            return sorted(client.smembers(key))
        case "stream":
            return [fields for _, fields in client.xrange(key)]
        case _:
            return client.get(key)


def refs(ending: Ending) -> list[tuple[str, int]]:
    """Part and attempt of what an ending publishes."""
    return [(one.ref.p, one.ref.attempt) for one in ending.publish]


def stops(ending: Ending) -> list[str]:
    """The tokens of the claims that an ending stops."""
    return sorted(claim.token for claim in ending.stop)


def sleep(ms: int = 60_000) -> NewPart:
    return NewPart("sleep", "", "sleep", delay_ms=ms)


def finished(run: Runs, tokens: Sequence[tuple[int | str, str]]) -> None:
    for p, token in tokens:
        run.begin(p, token)
        run.done(p, token)


def _undecoded(client: redis.Redis) -> redis.ConnectionPool:
    options = {**client.connection_pool.connection_kwargs, "decode_responses": False}
    return redis.ConnectionPool(connection_class=client.connection_pool.connection_class, **options)
