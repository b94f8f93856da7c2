"""Every Redis key, and nothing else.

All keys of a run, and the indexes that it is in, carry the hash tag of its shard, so that they are
on one cluster slot and one script may change them together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

PREFIX = "celeriac"

_OF_A_RUN = re.compile(rf"(?P<tag>{PREFIX}:\{{\d+\}}:)(?P<kind>[^:]+):(?P<rest>.+)")

#: Kinds of keys that list many runs and stay, though their names have one part more.
_OF_A_SHARD = frozenset({"by_state"})


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of all keys, for a fixed number of shards.

    Args:
        shards: How many slots the runs are spread over. Can't change once runs exist.
    """

    shards: int = 16

    def shard_of(self, run_id: str) -> int:
        """The shard a run lives on, from 0."""
        return crc32(run_id.encode()) % self.shards

    def of_run(self, run_id: str) -> tuple[str, ...]:
        """The keys that each transition of a run is given, in the order `lua/_run.lua` names them."""
        return _of_run(self.shard_of(run_id), run_id)

    def run(self, run_id: str) -> str:
        """Hash: workflow, state, phase, progress, input, result, error, times in ms."""
        return self.of_run(run_id)[0]

    def runs(self, shard: int) -> str:
        """The stem of the keys of a shard's runs: a run id follows."""
        return _shared(shard, "run:")

    def journal(self, run_id: str) -> str:
        """Hash: await number -> its entry; `await.part` -> the part's outcome."""
        return self.of_run(run_id)[1]

    def join(self, run_id: str, n: int) -> str:
        """Hash: policy, nonce, counts, specs and claims of await `n` while it is open or claimed."""
        return self.of_run(run_id)[2] + str(n)

    def upload(self, run_id: str, token: str) -> str:
        """List: the input of a run that a client is about to submit; ends an hour after its last piece.

        Once the run is there, the list is its own: `input`, and ends with it.
        """
        return f"{self.of_run(run_id)[2]}input~{token}"

    def steps(self, run_id: str) -> str:
        """Hash: `await.part` -> queue and name; `await.part:s` -> state, attempt and times in ms."""
        return self.of_run(run_id)[3]

    def events(self, run_id: str) -> str:
        """Stream of what happened, capped at about 1,000."""
        return self.of_run(run_id)[4]

    def end(self, run_id: str) -> str:
        """Stream with one entry, for a minute after the run has ended: what `result()` waits for."""
        return self.events(run_id) + "/end"  # `:end` may be how another run's id ends

    def late(self, run_id: str) -> str:
        """Hash: `await.part` -> an outcome that came after its join was decided."""
        return self.of_run(run_id)[5]

    def promises(self, run_id: str) -> str:
        """Hash: name of a promise -> what the outside has said, and the await that this decided."""
        return self.of_run(run_id)[12]

    def channels(self, run_id: str) -> str:
        """Set: the names of the channels that have unread messages."""
        return self.of_run(run_id)[13]

    def unread(self, run_id: str, channel: str) -> str:
        """List: the messages of a channel that nobody has received yet, oldest first."""
        return f"{self.channels(run_id)}/q/{channel}"

    def sent(self, run_id: str, sender: str) -> str:
        """String with a short life: the last message that a sender has sent to the run (see `lua/send.lua`)."""
        return f"{self.channels(run_id)}/s/{sender}"

    def due(self, shard: int) -> str:
        """Zset: everything unfinished, scored by the tick at which to look at it."""
        return _shared(shard, "due")

    def timers(self, shard: int) -> str:
        """Zset: everything that waits for a time, scored in ms of Redis' own clock."""
        return _shared(shard, "timers")

    def tick(self, shard: int) -> str:
        """Counter: the shard's clock of liveness."""
        return _shared(shard, "tick")

    def server(self, shard: int) -> str:
        """String: the run id of the Redis server that the shard was last met on."""
        return _shared(shard, "server")

    def of_server(self, shard: int) -> tuple[str, str, str]:
        """The keys by which a shard knows that its server was restarted, in the order of `lua/meet.lua`."""
        return self.server(shard), self.tick(shard), self.grace(shard)

    def grace(self, shard: int) -> str:
        """String, after a restart of Redis only: the tick at which claims are granted again."""
        return _shared(shard, "tick:grace")

    def running(self, shard: int) -> str:
        """Zset, after a restart of Redis only: steps that run although their claim is lost."""
        return _shared(shard, "tick:running")

    def state(self, shard: int, state: str) -> str:
        """Zset: the shard's runs in `state`, scored by when they were submitted, in ms."""
        return _shared(shard, "by_state:") + state

    def counts(self, shard: int) -> str:
        """Hash of figures: `kind|first|second|bucket` -> how many (see `lua/_count.lua`); of a bounded size."""
        return _shared(shard, "counts")

    def lease(self, shard: int) -> str:
        """String with a short life: which worker sweeps the shard."""
        return _shared(shard, "sweeper")

    def raised(self, shard: int) -> str:
        """String with a short life: the tick was raised within the last second."""
        return _shared(shard, "raised")

    def wake(self, shard: int) -> str:
        """Channel: a timer was set that is earlier than all others of the shard."""
        return _shared(shard, "wake")

    @staticmethod
    def clock() -> str:
        """String, in tests of workflows only: what their clock shows, in ms (see `status.virtual`)."""
        return f"{PREFIX}:clock"

    @staticmethod
    def layout() -> str:
        """String: the number of shards that this Redis was first used with."""
        return f"{PREFIX}:shards"


def possible_owners(key: str) -> dict[str, str]:
    """The runs that a key may belong to: run id -> its run key. None, for a key of a whole shard or another's.

    A run id may hold a `:` itself, so only which of them exist tells where it ends in the key.
    """
    found = _OF_A_RUN.fullmatch(key)
    if found is None or found["kind"] in _OF_A_SHARD:
        return {}
    ids = [found["rest"]] + [found["rest"][: end.start()] for end in re.finditer("[:/]", found["rest"])]
    return {run_id: f"{found['tag']}run:{run_id}" for run_id in ids}


def _shared(shard: int, name: str) -> str:
    return f"{PREFIX}:{{{shard}}}:{name}"


@lru_cache(maxsize=4096)
def _of_run(shard: int, run_id: str) -> tuple[str, ...]:
    tag = f"{PREFIX}:{{{shard}}}:"
    return (
        f"{tag}run:{run_id}",
        f"{tag}journal:{run_id}",
        f"{tag}join:{run_id}:",  # a stem: the await number follows
        f"{tag}steps:{run_id}",
        f"{tag}events:{run_id}",
        f"{tag}late:{run_id}",
        f"{tag}due",
        f"{tag}timers",
        f"{tag}tick",
        f"{tag}by_state:",  # a stem: the state follows
        f"{tag}ended",
        f"{tag}wake",
        f"{tag}promises:{run_id}",
        f"{tag}channels:{run_id}",  # and a stem
    )
