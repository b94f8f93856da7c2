"""The real scripts on a real server, on the world's clock, with a boundary before and after each write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import redis
from hiredis import pack_command
from redis.client import Pipeline

from simulation.watch import Violation
from status import scripts
from status.grace import Grace
from status.journals import Journals
from status.keys import Keys
from status.records import Grant, PartRef, RunRecord
from status.scripts import MOVE_NO_PART, RUN_SCRIPTS, TOGETHER, Scripts
from status.settings import Settings
from status.store import Store
from status.store_sweep import SWEEPER_LEASE_MS

if TYPE_CHECKING:
    from simulation.world import World

NOW = "sim:now"

#: The prelude's clock becomes the world's.
CLOCK = (
    """  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
""",
    f"  return tonumber(redis.call('GET', '{NOW}'))\n",
)
#: The sweep's two short-lived keys end when the world says so, not when this machine is slow.
LIVES = (
    ("'PX', ARGV[2])", "'PX', 100000000)"),
    ("'PX', RAISED_MS)", "'PX', 100000000)"),
    ("left_ms >= 0 and left_ms <= at_most_ms", "left_ms >= 0"),
)
LEASE_MS, RAISED_MS = SWEEPER_LEASE_MS, 900

#: What can't change a journal.
QUIET = frozenset({"vouch", "sweep", "repair", "begin", "reassert", "resent", "read", "lapse"})

#: What does no harm when it is done again, and answers as things are then.
WITHOUT_TOKEN = frozenset(
    {
        "vouch",
        "sweep",
        "repair",
        "park",
        "leaving",
        "turn_down",
        "child",
        "told",
        "reassert",
        "resent",
        "read",
        "give_back",
        "lapse",
    }
)

#: What several transitions in one script did is seen after each of them. (What ends at once ended one after the other.)
STATES = (
    (
        "local answers, first = {}, 1\n",
        """local answers, first, states = {}, 1, {}
local function see(i, last)
  local journal, seen, later = redis.call('HGETALL', JOURNAL), {}, { [asked[1][1]] = i < last }
  for j = i + 1, last do later[places[j]] = true end
  for at = 1, #journal, 2 do
    if not later[journal[at]] then
      seen[#seen + 1] = journal[at]
      seen[#seen + 1] = journal[at + 1]
    end
  end
  states[i] = { seen, redis.call('HGETALL', LATE) }
end
""",
    ),
    ("'decided', {}, {} } end\n", "'decided', {}, {} }; see(i, #places) end\n"),
    ("  answers[i] = made[one.name](one)\n", "  answers[i] = made[one.name](one)\n  see(i, i)\n"),
)

Patches = tuple[tuple[str, str, str], ...]


def replaced(text: str, old: str, new: str, where: str) -> str:
    """`text` with its one `old` replaced."""
    assert text.count(old) == 1, f"{where} has {text.count(old)} times {old!r}: the product changed, change this too"
    return text.replace(old, new)


@cache
def source(name: str, patches: Patches = ()) -> tuple[str, str]:
    """A script as this world runs it, and its digest. A patch is (script, old, new)."""
    text = scripts.source(name)
    if name in RUN_SCRIPTS:
        text = replaced(text, *CLOCK, "the prelude")
    if name == "sweep":
        for old, new in LIVES:
            text = replaced(text, old, new, "sweep.lua")
    elif name == "advance":
        for old, new in STATES:
            text = replaced(text, old, new, "advance.lua")
        text = text.removesuffix("return answers\n") + "return { answers, states }\n"
    for script, old, new in patches:
        alone = {script, "advance"} if script in TOGETHER else {script}
        shared = {"_run": RUN_SCRIPTS, "_join": RUN_SCRIPTS - MOVE_NO_PART}.get(script, alone)
        if name in shared:
            text = replaced(text, old, new, f"{script}.lua")
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


class SimPipeline(Pipeline):
    """Its TIME is the world's."""

    def time(self, **_: Any) -> Any:
        return self.eval(
            f"local t = tonumber(redis.call('GET', '{NOW}')) "
            "return {tostring(math.floor(t / 1000)), tostring((t % 1000) * 1000)}",
            0,
        )


class SimRedis(redis.Redis):
    """A client that the world may cut off."""

    world: World

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        self.world.check_line()
        return SimPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def hget(self, *args: Any) -> Any:
        self.world.check_line()
        return super().hget(*args)

    def hmget(self, *args: Any) -> Any:
        self.world.check_line()
        return super().hmget(*args)


class SimScripts(Scripts):
    """Runs a script as one process of the world, and lets the watch see what it did."""

    def __init__(self, client: redis.Redis, keys: Keys, world: World, patches: Patches) -> None:
        super().__init__(client, keys)
        self._world = world
        self._patches = patches
        self._told_ms = -1

    def call(
        self, name: str, keys: Sequence[str], args: Sequence[Any], meanwhile: Callable[[], object] | None = None
    ) -> Any:
        world = self._world
        if meanwhile is not None:
            meanwhile()
        if name == "resent":  # a count that nobody acts on: no moment of it is of interest
            return self._once(name, keys, args)
        world.boundary(f"before {name}")
        world.check_line()
        if world.current.met != world.server:
            # As on each new connection: before anything else, the server's run id.
            self._once("meet", self._keys.of_server(0), (world.server,))
            world.current.met = world.server
        answer = self._once(name, keys, args)
        if name not in WITHOUT_TOKEN and world.faults.resends():
            # The reply was lost and the client sends the script again.
            again = self._once(name, keys, args)
            self._must_be_same(name, args, answer, again)
            answer = again
        if name == "advance":
            said = " ".join(f"{one} {row[0]}" for (one, _), row in zip(one_by_one(args), answer, strict=False))
        elif name == "read":
            said = f"{len(answer[2]) // 2} fields" if len(answer) > 1 else answer[0]
        else:
            said = answer[0] if isinstance(answer, list) and answer else answer
        world.boundary(f"after {name} {self._place(name, args)}: {said}")
        return answer

    def _must_be_same(self, name: str, args: Sequence[Any], first: Any, again: Any) -> None:
        watch = self._world.watch
        if name != "advance":
            watch.same_answer(name, first, again)
            return
        asked = [one for one, _ in one_by_one(args)]
        if asked[-1] == "finish" and "open_join" in asked and len(first) == len(asked):
            # What came of its parts is on record, so they are not claimed any more.
            at = asked.index("open_join")
            if len(again) > at and again[at][0] in {"opened", "answered"}:
                asked, first, again = asked[:at], first[:at], again[:at]
        for one, said, said_again in zip(asked, first, again, strict=False):
            watch.same_answer(one, said, said_again)
        if len(first) != len(again):
            raise Violation(f"advance with the same tokens went on to {len(first)}, then to {len(again)} transitions")

    @staticmethod
    def _place(name: str, args: Sequence[Any]) -> str:
        """Which part it was about, for the trace."""
        at = {"begin": 0, "finish": 0, "release": 0, "repair": 0, "reassert": 0, "fire": 1}.get(name)
        return "" if at is None else f"{args[at]}.{args[at + 1]}"

    def _once(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        text, digest = source(name, self._patches)
        now_ms = self._world.now_ms
        commands = [] if now_ms == self._told_ms else [("SET", NOW, now_ms)]
        if name == "sweep":
            commands += self._world.over_keys(keys)
        first = len(commands)
        commands.append(("EVALSHA", digest, len(keys), *keys, *args))
        observed = name in RUN_SCRIPTS and name not in QUIET
        if observed:
            commands += [("HGETALL", keys[1]), ("HGETALL", keys[5])]
        answers = self._send(commands)
        self._told_ms = now_ms
        answer = answers[first]
        if isinstance(answer, redis.exceptions.NoScriptError):
            self._redis.script_load(text)
            return self._once(name, keys, args)
        if isinstance(answer, Exception):
            raise answer
        if name == "begin" and answer[0] == "granted":
            n, p, nonce, attempt, token = args[:5]
            undoes = self._world.current.job.sent.headers.get("celeriac_undoes")
            self._granted(PartRef(self._world.run_id, n, p, nonce, attempt), token, undoes)
        if name == "sweep" and answer[0]:
            self._world.swept()
        if name == "advance":
            answer, states = answer
            for (one, its_args), said, state in zip(one_by_one(args), answer, states, strict=False):
                self._saw(one, its_args, said, *map(mapping, state))
        elif observed:
            self._saw(name, args, answer, *map(mapping, answers[first + 1 :]))
        return answer

    def _saw(self, name: str, args: Sequence[Any], answer: Any, journal: dict[str, str], late: dict[str, str]) -> None:
        """One transition was made, by itself or beside others."""
        watch, run_id = self._world.watch, self._world.run_id
        watch.saw(name, args, answer, journal, late)
        if name == "open_join" and answer[0] == "granted":
            for claim in claims_in(args[10]):
                ref = PartRef(run_id, args[0], claim[0], args[2], 1)
                watch.granted_to(self._world.current, ref, claim[1], begins=False)
        elif name == "finish" and answer[0] != "decided" and len(answer) > 3:
            self._granted(PartRef(run_id, args[0], answer[2][0], args[2], 1), args[13])
        elif name == "give_back":
            for token in args[2::3]:
                watch.ended(token)

    def _granted(self, ref: PartRef, token: str, undoes: str | None = None) -> None:
        self._world.watch.granted_to(self._world.current, ref, token, undoes)

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        connection = self._world.ground.connection
        connection.send_packed_command([pack_command(tuple(map(str, command))) for command in commands])
        answers = []
        for _ in commands:
            try:
                answers.append(connection.read_response())
            except redis.exceptions.ResponseError as error:
                answers.append(error)
        return answers


def one_by_one(args: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    """The transitions that `advance` is to make."""
    left, found = list(args), []
    while left:
        name, count = left[0], int(left[1])
        found.append((name, left[2 : 2 + count]))
        left = left[2 + count :]
    return found


def claims_in(text: str) -> list[list[str]]:
    """Part and token of each claim that `open_join` is asked for."""
    words = text.split()
    return [words[at : at + 2] for at in range(0, len(words), 4)]


def mapping(flat: Any) -> dict[str, str]:
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


class SimStore(Store):
    """The store, as the processes of a world share it."""

    def __init__(self, client: SimRedis, world: World, patches: Patches, **settings: int) -> None:
        super().__init__(client, Settings(shards=1, **settings))
        self._world = world
        self._scripts = SimScripts(client, self.keys, world, patches)
        self.grace = Grace(self._scripts, self.keys)
        # Runs are short here; what is kept of them outlives crashes of all kinds.
        self.journals = Journals(1024 * 1024, least_fields=1)

    def begin(self, ref: PartRef, **more: Any) -> Grant:
        job = self._world.current.job
        if not job.ends:
            job.grant = super().begin(ref, **more)
            return job.grant
        return job.grant._replace(publish=())  # they were published when it began

    def load(self, run_id: str) -> RunRecord | None:
        self._world.boundary("before load")
        record = super().load(run_id)
        self._world.boundary("after load")
        return record


class Snapshot:
    """All of a database, as a restart may bring it back.

    Args:
        raw: A client that does not decode.
    """

    def __init__(self, raw: redis.Redis) -> None:
        keys = [key for key in raw.scan_iter(count=1000) if key != NOW.encode()]
        pipe = raw.pipeline(transaction=False)
        for key in keys:
            pipe.dump(key)
            pipe.pttl(key)
        answers = pipe.execute()
        self._keys = list(zip(keys, answers[::2], answers[1::2], strict=True))

    def restore(self, raw: redis.Redis) -> None:
        """Put it in the place of what is there."""
        now = raw.get(NOW)
        pipe = raw.pipeline(transaction=False)
        pipe.flushdb()
        pipe.set(NOW, now)
        for key, dumped, ttl_ms in self._keys:
            pipe.restore(key, max(0, ttl_ms), dumped)
        pipe.execute()
