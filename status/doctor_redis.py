"""What the doctor says of the Redis server: whether it keeps what it confirms, and goes on taking writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from status.doctor_words import Finding, error, info, ok, warning
from status.keys import Keys

#: `ZRANGE ... BYSCORE` is of this version.
OLDEST = (6, 2)

#: Nearer to the limit than this, and a burst of runs would reach it; or it has been reached, all but.
NEAR, FULL = 0.80, 0.95

#: Clocks further apart than this mislead the sweep about what is older: a message, or what waits for it.
APART_S = 1.0

_SETTINGS = ("appendfsync", "save", "stop-writes-on-bgsave-error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What a Redis says of itself.

    Attributes:
        where: Its URL, without a password.
        info: Of INFO.
        config: Of CONFIG GET; empty where that is forbidden.
        ahead_s: Its clock before ours; with half a round trip of doubt.
        shards: As stored by the first process that used it, or None.
    """

    where: str
    info: Mapping[str, Any]
    config: Mapping[str, str]
    round_trip_ms: float
    ahead_s: float
    shards: int | None


def ask_server(redis: Redis, where: str) -> Server:
    """Ask a server about itself.

    Raises:
        RedisError: It does not answer.
    """
    redis.ping()  # so that what follows times no connecting
    began_s = monotonic()
    seconds, micros = redis.time()
    took_s = monotonic() - began_s
    ahead_s = seconds + micros / 1e6 - (time() - took_s / 2)
    try:
        config = cast("dict[str, str]", redis.config_get(*_SETTINGS))
    except ResponseError:  # a managed server forbids it, or calls it otherwise
        config = {}
    shards = cast("str | None", redis.get(Keys.layout()))
    return Server(
        where=where,
        info=redis.info(),
        config=config,
        round_trip_ms=took_s * 1000,
        ahead_s=ahead_s,
        shards=None if shards is None else int(shards),
    )


def redis_findings(server: Server, shards: int) -> list[Finding]:
    """Everything about a server.

    Args:
        shards: As this process has them set.
    """
    checks = (version, role, persistence, disk, eviction, memory, clock)
    return [check(server) for check in checks] + [layout(server, shards)]


def version(server: Server) -> Finding:
    """Whether it knows the commands that the transitions use."""
    name = "Valkey" if server.info.get("valkey_version") else "Redis"
    text = str(server.info.get("valkey_version") or server.info.get("redis_version", "0"))
    seen = f"{name} {text} at {server.where}, {server.round_trip_ms:.1f} ms away"
    numbers = tuple(int(number) for number in text.split(".")[:2] if number.isdigit())
    if numbers < OLDEST:
        return error("redis", seen, "use Redis 6.2 or newer, or any Valkey: the transitions need its commands")
    return ok("redis", seen)


def role(server: Server) -> Finding:
    """Whether it takes writes."""
    if server.info.get("role") == "slave":
        return error("redis.role", "it is a replica, which refuses writes", "set REDIS_URL to the primary")
    if server.info.get("loading"):
        return error("redis.role", "it still loads its data", "wait until it has; runs go on by themselves")
    replicas = int(server.info.get("connected_slaves", 0))
    return ok("redis.role", f"primary with {replicas} replica{'' if replicas == 1 else 's'}")


def persistence(server: Server) -> Finding:
    """What a restart of the server would cost."""
    if not server.info.get("aof_enabled"):
        saves = server.config.get("save", "")
        if saves:
            return warning(
                "redis.aof",
                f"no append-only file, only snapshots (save {saves}): a restart loses what came after the last",
                "CONFIG SET appendonly yes, and in its configuration",
            )
        return error(
            "redis.aof",
            "nothing is written to disk that outlives a restart: no append-only file"
            + (", no snapshots" if server.config else ""),
            "CONFIG SET appendonly yes, and in its configuration",
        )
    fsync = server.config.get("appendfsync")
    match fsync:
        case None:
            return info("redis.aof", "append-only file; CONFIG GET is forbidden, so its fsync can't be seen")
        case "always":
            return ok("redis.aof", "append-only file, fsync always: what is confirmed is on disk")
        case "everysec":
            return ok("redis.aof", "append-only file, fsync everysec: a loss of power may cost a second")
    return warning(
        "redis.aof",
        f"append-only file, but appendfsync is {fsync}: a loss of power may cost half a minute",
        "CONFIG SET appendfsync everysec (or always)",
    )


def disk(server: Server) -> Finding:
    """Whether it could write to its disk the last time it tried."""
    of = server.info
    if of.get("aof_last_write_status", "ok") != "ok":
        return error(
            "redis.disk",
            f"the last write to the append-only file failed (aof_last_write_status:{of['aof_last_write_status']}): "
            "writes are refused (MISCONF)",
            "make room on its disk and look into its log; runs go on by themselves",
        )
    if of.get("rdb_last_bgsave_status", "ok") != "ok":
        refuses = server.config.get("stop-writes-on-bgsave-error", "yes") == "yes" and server.config.get("save", "x")
        say = error if refuses else warning
        return say(
            "redis.disk",
            "the last snapshot failed" + (": writes are refused (MISCONF)" if refuses else ""),
            "make room on its disk and look into its log",
        )
    if of.get("aof_last_bgrewrite_status", "ok") != "ok":
        return warning(
            "redis.disk",
            "the append-only file could not be rewritten: it grows without end",
            "make room on its disk and look into its log",
        )
    return ok("redis.disk", "the last writes to its disk went well")


def eviction(server: Server) -> Finding:
    """Whether it may throw away keys when its memory is full."""
    policy = str(server.info.get("maxmemory_policy", "noeviction"))
    evicted = int(server.info.get("evicted_keys", 0))
    gone = f"; {evicted:,} keys are gone since it was started" if evicted else ""
    if policy != "noeviction":
        return error(
            "redis.eviction",
            f"maxmemory-policy is {policy}: a full Redis throws runs away, without a word{gone}",
            "CONFIG SET maxmemory-policy noeviction, and in its configuration",
        )
    if evicted:
        return warning(
            "redis.eviction",
            f"maxmemory-policy is noeviction now, but it was otherwise{gone}",
            "look for runs that are gone: what they owe is in the saga log in SQL",
        )
    return ok("redis.eviction", "maxmemory-policy is noeviction")


def memory(server: Server) -> Finding:
    """How much room is left."""
    used, limit = int(server.info.get("used_memory", 0)), int(server.info.get("maxmemory", 0))
    if not limit:
        return ok("redis.memory", f"{_mib(used)} used, no limit is set")
    share = used / limit
    seen = f"{_mib(used)} of {_mib(limit)} used ({share:.0%})"
    remedy = "raise maxmemory, or keep finished runs for less long (CELERIAC_RETENTION_S)"
    if share >= FULL:
        return error("redis.memory", f"{seen}: at the limit, writes are refused (OOM) and runs stand still", remedy)
    if share >= NEAR:
        return warning("redis.memory", seen, remedy)
    return ok("redis.memory", seen)


def clock(server: Server) -> Finding:
    """This machine's clock beside the server's."""
    apart_s = abs(server.ahead_s) - server.round_trip_ms / 2000
    if apart_s <= APART_S:
        return ok("redis.clock", "its clock and this machine's agree within a second")
    which = "behind" if server.ahead_s > 0 else "before"
    return warning(
        "redis.clock",
        f"this machine's clock is {apart_s:.1f} s {which} that of Redis: the sweep is misled about what is lost",
        "let both machines keep time (NTP)",
    )


def layout(server: Server, shards: int) -> Finding:
    """Whether this process looks for runs where they are."""
    if server.shards is None:
        return info("redis.shards", f"this Redis is new to celeriac; the first to use it will keep {shards} shards")
    if server.shards != shards:
        return error(
            "redis.shards",
            f"this Redis holds runs on {server.shards} shards, CELERIAC_SHARDS says {shards}: it is refused",
            f"set CELERIAC_SHARDS={server.shards}, for workers and clients alike",
        )
    return ok("redis.shards", f"{shards} shards, as stored")


def _mib(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
