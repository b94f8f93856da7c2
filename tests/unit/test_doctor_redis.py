"""What the doctor says of a server, from what a server says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from status import doctor_redis
from status.doctor_redis import Server, redis_findings
from status.doctor_words import Severity

GOOD = {
    "valkey_version": "9.1.2",
    "redis_version": "7.2.4",
    "role": "master",
    "loading": 0,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
    "used_memory": 2**20,
    "evicted_keys": 0,
}


def server(
    config: dict[str, str] | None = None, *, ahead_s: float = 0.0, shards: int | None = 16, **info: Any
) -> Server:
    return Server(
        where="redis://here:6379/0",
        info=GOOD | info,
        config={"appendfsync": "everysec", "save": ""} if config is None else config,
        round_trip_ms=0.2,
        ahead_s=ahead_s,
        shards=shards,
    )


def test_a_good_server_gives_nothing_but_ok():
    assert {found.severity for found in redis_findings(server(), 16)} == {Severity.OK}


@pytest.mark.parametrize(
    ("rule", "given", "severity", "words"),
    [
        ("version", server(valkey_version="", redis_version="6.0.16"), "error", "6.0.16"),
        ("version", server(valkey_version="", redis_version="6.2.0"), "ok", "Redis 6.2.0"),
        ("version", server(valkey_version="", redis_version="10.1"), "ok", "10.1"),
        ("role", server(role="slave"), "error", "replica"),
        ("role", server(loading=1), "error", "still loads"),
        ("persistence", server(aof_enabled=0), "error", "no append-only file, no snapshots"),
        ("persistence", server({"save": "60 1"}, aof_enabled=0), "warning", "only snapshots"),
        ("persistence", server({"appendfsync": "no"}), "warning", "appendfsync is no"),
        ("persistence", server({"appendfsync": "always"}), "ok", "always"),
        ("persistence", server({}), "info", "CONFIG GET is forbidden"),
        ("disk", server(aof_last_write_status="err"), "error", "MISCONF"),
        ("disk", server({"save": "60 1"}, rdb_last_bgsave_status="err"), "error", "MISCONF"),
        ("disk", server({"save": ""}, rdb_last_bgsave_status="err"), "warning", "snapshot failed"),
        ("disk", server(aof_last_bgrewrite_status="err"), "warning", "rewritten"),
        ("eviction", server(maxmemory_policy="allkeys-lru"), "error", "allkeys-lru"),
        ("eviction", server(evicted_keys=1200), "warning", "1,200 keys are gone"),
        ("memory", server(maxmemory=100, used_memory=79), "ok", "79%"),
        ("memory", server(maxmemory=100, used_memory=80), "warning", "80%"),
        ("memory", server(maxmemory=100, used_memory=95), "error", "OOM"),
        ("clock", server(ahead_s=0.9), "ok", "within a second"),
        ("clock", server(ahead_s=5), "warning", "5.0 s behind that of Redis"),
        ("clock", server(ahead_s=-5), "warning", "5.0 s before that of Redis"),
    ],
)
def test_each_rule_of_a_server_says_how_bad_and_what_to_do(rule: str, given: Server, severity: str, words: str):
    found = getattr(doctor_redis, rule)(given)

    assert (found.severity, words in found.seen) == (severity, True), found
    assert bool(found.remedy) is (severity in {"warning", "error"}), found


@pytest.mark.parametrize(("stored", "severity"), [(16, "ok"), (4, "error"), (None, "info")])
def test_shards_other_than_the_stored_are_an_error(stored: int | None, severity: str):
    found = doctor_redis.layout(server(shards=stored), 16)

    assert found.severity == severity
    assert severity != "error" or "CELERIAC_SHARDS=4" in found.remedy
