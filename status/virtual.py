"""A store on a clock of its own, for tests of workflows: time stands still until it is told to go on.

The real scripts on a real server. The prelude's clock is replaced as they are loaded, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha1
from typing import Any, cast

from redis import Redis
from redis.exceptions import NoScriptError

from status import scripts
from status.grace import Grace
from status.keys import Keys
from status.records import Grant, PartRef, Timer
from status.scripts import RUN_SCRIPTS, Scripts
from status.settings import Settings
from status.store import Store

TICK_MS = 1000

#: What the scripts know of the time, and what they are told instead.
CLOCK = (
    ("  local t = redis.call('TIME')\n  return t[1] * 1000 + math.floor(t[2] / 1000)\n",
     f"  return tonumber(redis.call('GET', '{Keys.clock()}'))\n"),
    ("EVENTS_KEPT, '*',", "EVENTS_KEPT, int(now_ms()) .. '-*',"),
)  # fmt: skip

#: Called before and after each transition: with `before` or `after`, and its name.
Boundary = Callable[[str, str], None]


@cache
def source(name: str) -> tuple[str, str]:
    """A transition on the virtual clock, and its digest."""
    text = scripts.source(name)
    for real, virtual in CLOCK if name in RUN_SCRIPTS else ():
        if text.count(real) != 1:
            raise RuntimeError(f"{name}.lua no longer says {real!r} once: follow it in status/virtual.py")
        text = text.replace(real, virtual)
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


class VirtualScripts(Scripts):
    """Runs transitions on the virtual clock.

    Args:
        boundary: Called before and after each; what it raises ends the process that made the call.
    """

    def __init__(self, redis: Redis, keys: Keys, boundary: Boundary) -> None:
        super().__init__(redis, keys)
        self._boundary = boundary

    def call(
        self, name: str, keys: Sequence[str], args: Sequence[Any], meanwhile: Callable[[], object] | None = None
    ) -> Any:
        self._boundary("before", name)
        text, digest = source(name)
        try:
            answer = self._patiently(("EVALSHA", digest, len(keys), *keys, *args), meanwhile)
        except NoScriptError:
            answer = self._patiently(("EVAL", text, len(keys), *keys, *args), meanwhile)
        self._boundary("after", name)
        return answer


class VirtualStore(Store):
    """Runs on a server that nobody else uses: it is emptied.

    Args:
        now_ms: What the clock shows at first.
        boundary: See `VirtualScripts`.
    """

    def __init__(self, redis: Redis, settings: Settings, *, now_ms: int, boundary: Boundary) -> None:
        super().__init__(redis, settings)
        self._scripts = VirtualScripts(redis, self.keys, boundary)
        self.grace = Grace(self._scripts, self.keys)
        self._grants: dict[str, Grant] = {}
        self.start_ms = self.now_ms = now_ms
        redis.flushdb()
        self.check_layout()
        self.set_clock(now_ms)

    def set_clock(self, now_ms: int) -> None:
        """Let the clock show `now_ms`, and each shard's tick with it."""
        self.now_ms = now_ms
        pipe = self.redis.pipeline(transaction=False)
        pipe.set(Keys.clock(), now_ms)
        for shard in range(self.keys.shards):
            pipe.set(self.keys.tick(shard), self.tick)
        pipe.execute()

    @property
    def tick(self) -> int:
        """Of all shards."""
        return (self.now_ms - self.start_ms) // TICK_MS

    def begin(self, ref: PartRef, *, token: str, **more: Any) -> Grant:
        """As the store's own; a token that was granted stays so, for its body is called again when its time is over."""
        if token not in self._grants:
            grant = super().begin(ref, token=token, **more)
            if not grant.granted:
                return grant
            self._grants[token] = grant._replace(publish=())
            return grant
        return self._grants[token]

    def timers(self) -> list[tuple[int, Timer]]:
        """Each shard's first timer, with the time of the virtual clock at which it is due, ms."""
        found: list[tuple[int, Timer]] = []
        for shard in range(self.keys.shards):
            rows = cast("list[Any]", self.redis.zrange(self.keys.timers(shard), 0, 0, withscores=True))
            found += [(int(at_ms), Timer.parse(member)) for member, at_ms in rows]
        return sorted(found)

    def due(self) -> list[tuple[int, str, str, str]]:
        """All that is unfinished: when it is looked at, ms of the virtual clock; run, await ('': its turn) and part."""
        found: list[tuple[int, str, str, str]] = []
        for shard in range(self.keys.shards):
            for member, score in cast("list[Any]", self.redis.zrange(self.keys.due(shard), 0, -1, withscores=True)):
                run_id, _, place = member.partition("/")
                n, _, p = place.partition(".")
                found.append((self.start_ms + (int(score) + 1) * TICK_MS, run_id, n, p))
        return sorted(found)

    def parent_of(self, run_id: str) -> str:
        """The run that a child was started by, or ''."""
        step_id = cast("str | None", self.redis.hget(self.keys.run(run_id), "parent"))
        return (step_id or "").partition("/")[0]

    def parked(self, run_id: str) -> bool:
        """Whether a run waits for other code."""
        state, error = cast("list[str | None]", self.redis.hmget(self.keys.run(run_id), ["state", "error"]))
        return state == "suspended" and bool(error)
