"""Every transition whose reply is lost is sent again, and has happened once. No worker."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.exceptions import ConnectionError  # noqa: A004  # redis' own

from runs import Runs, part, sleep
from status.records import NewPart, News

#: Fields and entries that hold a time; the rest of Redis must be the same with and without the loss.
TIMES = ("_ms", "at")


@dataclass
class Case:
    """A transition: what must be there before, the call, and what is due if its answer stays unknown."""

    name: str
    before: Callable[[Runs], Any]
    act: Callable[[Runs], Any]


def claimed(run: Runs) -> None:
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b", timeout_ms=60_000)


def waiting(run: Runs) -> None:
    run.started(sleep(), part(after_ms=60_000), part(within_ms=60_000), policy="settle", timeout_ms=60_000)


def late(run: Runs) -> None:
    claimed(run)
    run.done(0, "a")


def receiving(run: Runs) -> None:
    run.started(NewPart("receive", "", "c"), part(), policy="first")
    run.begin(1, "a")


def begin_anew(run: Runs) -> str:
    more = {"input_json": "[[],{}]", "first": 1, "entered": 0, "carried": '["",0,{}]', "news": News()}
    return run.store.restart(run.id, seen="", token="r", **more)


CASES = [
    Case("submit", lambda run: run.due(), lambda run: run.submit(timeout_ms=60_000)),
    Case("open_join", lambda run: run.submit(), lambda run: run.open(part(), sleep())),
    Case("open_join answered", lambda run: (run.submit(), run.cancel("c")), lambda run: run.open(part())),
    Case("begin", lambda run: run.started(part()), lambda run: run.begin(0, "a", timeout_ms=60_000)),
    Case("vouch", claimed, lambda run: run.store.vouch(run.id, [(0, "0", "a"), (0, "1", "b")])),
    Case("finish done", claimed, lambda run: run.done(0, "a")),
    Case("finish failed", claimed, lambda run: run.fail(0, "a")),
    Case("finish retry", claimed, lambda run: run.retry(0, "a")),
    Case("finish late", late, lambda run: run.done(1, "b")),
    Case("release", claimed, lambda run: run.release(0, "a", call="x").code),
    Case("release late", late, lambda run: run.release(1, "b", call="x").code),
    Case("cancel", claimed, lambda run: run.cancel("c").code),
    Case("cancel of nothing", lambda run: run.submit(), lambda run: run.cancel("c").code),
    Case("fire sleep", waiting, lambda run: run.fire("sleep", 0, token="f").code),
    Case("fire start", waiting, lambda run: run.fire("start", 1, token="f").code),
    Case("fire within", waiting, lambda run: run.fire("within", 2, token="f").code),
    Case("fire join", waiting, lambda run: run.fire("join", token="f").code),
    Case("fire attempt", claimed, lambda run: run.fire("attempt", 1, token="f").code),
    Case("complete", lambda run: run.submit(), lambda run: run.complete(seen="", result="1")),
    Case("send", lambda run: run.submit(), lambda run: run.store.send(run.id, "c", "v1", token="s.1")[0]),
    Case("send decided", receiving, lambda run: run.store.send(run.id, "c", "v1", token="s.1")),
    Case("restart", lambda run: run.submit(), begin_anew),
    Case("park", lambda run: run.submit(), lambda run: run.store.park(run.id, seen="", error="{}")),
    Case("repair", lambda run: (run.submit(), run.tick(9)), lambda run: type(run.store.repair(run.id)).__name__),
    Case("sweep", lambda run: run.submit(), lambda run: run.store.sweep(run.shard, "w")),
]

#: Those whose second answer says that nothing is left to do: what is to be published is due, and the sweep finds it.
TO_THE_SWEEP = {"finish late", "release", "release late", "repair"} | {
    f"fire {kind}" for kind in ("sleep", "start", "within", "join", "attempt")
}


def lose_a_reply(run: Runs, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next transition is carried out, and its reply does not arrive. Gives what was lost."""
    scripts = run.store._scripts
    send, lost = scripts._send, []

    def losing(connection: Any, command: tuple[Any, ...], meanwhile: Any) -> Any:
        answer = send(connection, command, meanwhile)
        if not lost:
            lost.append(command[0])
            connection.disconnect()
            raise ConnectionError("the reply is lost")
        return answer

    monkeypatch.setattr(scripts, "_send", losing)
    return lost


def without_times(value: Any) -> Any:
    """What is in Redis, but for the times at which it happened."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if not key.endswith(TIMES)}
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], float):
        return (value[0], value[1] if value[1] < 1e6 else "a time")
    if isinstance(value, str):
        return "a text with times" if any(len(word) == 13 for word in _numbers(value)) else value
    return value


def _numbers(text: str) -> list[str]:
    return "".join(letter if letter.isdigit() else " " for letter in text).split()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reply_lost(redis_client, monkeypatch, case):
    plain = Runs(redis_client)
    case.before(plain)
    wanted = case.act(plain)
    there = without_times(plain.everything())
    redis_client.flushall()
    run = Runs(redis_client)
    case.before(run)
    lost = lose_a_reply(run, monkeypatch)

    answer = case.act(run)

    assert lost in (["EVALSHA"], ["EVAL"])
    assert without_times(run.everything()) == there
    if case.name in TO_THE_SWEEP:
        assert answer in {"none", "NoneType", "recorded"}
        assert run.due() or run.timers()
    else:
        assert answer == wanted
