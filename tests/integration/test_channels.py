"""Channels: messages before, while and after somebody waits for them. Real Redis, real turns, no worker."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

import json
import os
from datetime import date
from itertools import count, pairwise
from typing import Any

import pytest

from canvas import (
    Answer,
    ConfigError,
    PayloadError,
    Run,
    StepTimeout,
    TimedOut,
    channel,
    fan_out,
    fan_out_fail,
    promise,
    quorum,
    race,
    step,
    with_timeout,
    workflow,
)
from canvas import engine as engines
from core import current_app
from runs import Runs, part, refs, sleep, stops
from status import get_status, here, send
from status.channels import senders
from status.operating import retry
from status.records import NewPart
from turns import Turns

MESSAGES, CHUNK = 10_000, 500


def waits(name: str = "jobs", within_ms: int = 0) -> NewPart:
    return NewPart("receive", "", name, within_ms=within_ms)


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


def say(run: Runs, value: Any = 1, name: str = "jobs", token: str = "") -> Any:
    return run.store.send(run.id, name, f"v{value}", token=token or f"s{next(run._number)}.1")


def unread(run: Runs, name: str = "jobs") -> list[str]:
    return [text[1:] for text in run.redis.lrange(run.keys.unread(run.id, name), 0, -1)]


def channels(run: Runs) -> set[str]:
    return run.redis.smembers(run.keys.channels(run.id))


# --- the transition --------------------------------------------------------------------


def test_a_message_decides_the_await_that_waits_for_it_and_owes_a_turn(run):
    run.started(waits())
    assert (run.due(), run.timers(), run.step_state()) == (set(), set(), "waiting")

    answer, ending = say(run)

    assert (answer, ending.code) == ("accepted", "decided")
    assert (run.decision(), run.outcome(), run.due(), run.step_state()) == (("all", ""), "v1", {""}, "done")
    assert run.events()[-2:] == ["message.received", "join.decided"]
    assert (unread(run), channels(run), run.joined()) == ([], set(), False)


def test_a_message_that_came_between_check_and_open_is_not_missed(run):
    run.submit()
    answer, ending = say(run)
    assert (answer, ending.code, run.due(), unread(run)) == ("accepted", "recorded", {""}, ["1"])

    assert run.open(waits()) == "answered"

    assert (run.decision(), run.outcome(), run.due()) == (("all", ""), "v1", {""})
    assert (unread(run), channels(run), run.joined()) == ([], set(), False)


def test_messages_are_received_in_the_order_of_their_sending_whenever_they_come(run):
    run.submit()
    say(run, 1)
    say(run, 2)
    assert run.open(waits()) == "answered"
    say(run, 3)
    assert [run.open(waits(), n=n) for n in (1, 2, 3)] == ["answered", "answered", "opened"]
    say(run, 4)
    say(run, 5)
    assert run.open(waits(), n=4) == "answered"

    assert [run.outcome(n=n) for n in range(5)] == ["v1", "v2", "v3", "v4", "v5"]


def test_several_receives_in_one_await_get_a_message_each_in_order(run):
    run.submit()
    say(run, 1)
    assert run.open(waits(), waits("other"), waits(), waits(), policy="all") == "opened"
    assert (run.outcome(0), run.outcome(2)) == ("v1", None)
    assert say(run, 2)[1].code == "recorded"
    assert (run.outcome(2), run.outcome(3)) == ("v2", None)
    assert say(run, 3)[1].code == "recorded"
    assert say(run, 9, "other")[1].code == "decided"

    assert [run.outcome(p) for p in range(4)] == ["v1", "v9", "v2", "v3"]


def test_a_message_more_than_are_waited_for_stays_unread(run):
    run.started(waits(), waits("other"))
    for value in (1, 2, 3):
        say(run, value)

    assert (run.outcome(0), unread(run), channels(run)) == ("v1", ["2", "3"], {"jobs"})


def test_send_reply_lost(run):
    run.started(waits(), part(), policy="first")
    run.begin(1)
    first = say(run, token="t.7")
    before = run.everything()

    again = say(run, token="t.7")

    assert (again, stops(again[1])) == (first, ["a"])
    assert run.everything() == before


def test_send_reply_lost_before_anybody_waits_and_after_it_was_received(run):
    run.submit()
    first = say(run, token="t.7")
    assert say(run, token="t.7") == first
    assert unread(run) == ["1"]
    run.open(waits())
    before = run.everything()

    assert say(run, token="t.7") == first
    assert run.everything() == before


def test_a_message_that_arrives_after_the_next_of_its_sender_was_given_up_and_counts_no_more(run):
    run.submit()
    say(run, 8, token="t.8")

    assert say(run, 7, token="t.7")[0] == "accepted"
    assert unread(run) == ["8"]


def test_send_reply_lost_and_the_run_has_ended_since(run):
    run.started(waits())
    first = say(run, token="t.1")
    run.complete(seen="n0")

    assert say(run, token="t.1")[0] == first[0] == "accepted"
    assert say(run, token="t.2")[0] == "late"


def test_send_to_an_unknown_run_writes_nothing(run):
    assert say(run)[0] == "unknown"
    assert run.everything() == {}


def test_send_after_the_end_is_late_and_writes_nothing(run):
    run.started(part())
    run.begin()
    run.done()
    run.complete(seen="n0")
    before = run.everything()

    assert say(run)[0] == "late"
    assert run.everything() == before


def test_what_nobody_read_goes_with_its_run(run):
    run.submit()
    say(run)
    say(run, 2, "other")
    run.complete(seen="")

    ends = {run.redis.pexpiretime(key) for key in [run.keys.run("r"), run.keys.channels("r")]}
    ends |= {run.redis.pexpiretime(run.keys.unread("r", name)) for name in ("jobs", "other")}
    assert len(ends) == 1
    assert ends.pop() > 0


def test_what_is_remembered_of_a_sender_ends_by_itself(run):
    run.submit()
    say(run, token="t.1")

    assert 60_000 < run.redis.pttl(run.keys.sent("r", "t")) <= 600_000


@pytest.mark.parametrize("timer_first", [True, False])
def test_a_receive_that_timed_out_has_received_nothing(run, timer_first):
    run.started(waits(), timeout_ms=60_000)
    if timer_first:
        assert run.fire("join").code == "decided"
        assert say(run)[1].code == "recorded"
        assert unread(run) == ["1"]
    else:
        assert say(run)[1].code == "decided"
        assert run.fire("join").code == "none"
        say(run, 2)

    assert (run.timers(), run.due()) == (set(), {""})
    assert run.open(waits(), n=1) == "answered"
    assert run.outcome(n=1) == ("v1" if timer_first else "v2")


def test_a_part_whose_own_time_was_up_has_received_nothing_and_the_next_part_gets_it(run):
    run.started(waits(within_ms=60_000), waits(), policy="settle")
    assert run.timers() == {"within 0"}
    assert run.fire("within", 0).code == "recorded"
    assert (run.outcome(0), run.step_state(0)) == ("t", "failed")

    assert say(run)[1].code == "decided"
    assert run.outcome(1) == "v1"


def test_a_message_in_time_drops_the_timer(run):
    run.started(waits(within_ms=60_000), part())
    say(run)

    assert (run.timers(), run.outcome(0)) == (set(), "v1")


def test_a_receive_that_lost_a_race_has_received_nothing(run):
    run.started(waits(), part(), policy="first")
    run.begin(1)
    assert run.done(1) == "decided"
    assert (run.step_state(), run.joined(), run.due()) == ("stopped", False, {""})

    say(run)
    assert (unread(run), run.open(waits(), n=1), run.outcome(n=1)) == (["1"], "answered", "v1")


def test_of_two_receives_in_a_race_the_second_message_is_left(run):
    run.submit()
    say(run, 1)
    say(run, 2)

    assert run.open(waits(), waits(), part(), policy="first") == "answered"

    assert (run.decision(), run.outcome(0), run.outcome(1), unread(run)) == (("won", "0"), "v1", None, ["2"])
    assert [run.step_state(p) for p in range(3)] == ["done", "stopped", "stopped"]
    assert run.due() == {""}


def test_a_cancel_receives_nothing(run):
    run.started(waits())
    assert run.cancel().code == "decided"
    say(run)

    assert (unread(run), run.open(waits(), n=1)) == (["1"], "answered")


def test_a_noted_cancel_answers_a_receive_and_leaves_the_message(run):
    run.submit()
    say(run)
    run.cancel()

    assert (run.open(waits()), run.decision(), unread(run)) == ("answered", ("cancelled", "409|enough"), ["1"])


def test_a_failure_beside_it_leaves_a_message_that_comes_later(run):
    run.started(waits(), part())
    run.begin(1)
    assert run.fail(1) == "decided"
    say(run)

    assert unread(run) == ["1"]


@pytest.mark.parametrize("outside", [waits(), sleep()])
def test_a_run_is_suspended_once_only_the_outside_is_left_to_wait_for(run, outside):
    run.started(part(), outside, waits("other"), policy="settle")
    run.begin(0)
    run.done(0)

    assert run.state == "suspended"


def test_a_message_lets_the_parts_that_wait_for_a_place_be(run):
    """A success starts nobody: a delayed part of a race begins when those before it have failed."""
    run.started(waits(), part(after_ms=60_000), policy="quorum", need=2)

    _, ending = say(run)

    assert (ending.code, refs(ending), run.timers()) == ("recorded", [], {"start 1"})


def test_channels_and_promises_of_one_name_do_not_meet(run):
    run.started(waits("x"), NewPart("promise", "", "x"))
    assert run.store.resolve("r", "x", "v2", token="t")[1].code == "recorded"
    assert say(run, 1, "x")[1].code == "decided"

    assert (run.outcome(0), run.outcome(1)) == ("v1", "v2")


def test_names_are_taken_as_they_are(run):
    for n, name in enumerate(["|", "a|b", "p", "s0", "-", "0,1", "ü: %d+", "q:x", "/q/", "a b"]):
        run.submit()
        assert run.open(waits(name), waits("other"), policy="first", n=n) == "opened"
        assert say(run, n, name)[1].code == "decided"
        assert run.outcome(n=n) == f"v{n}"


def test_a_thousand_receives_in_one_await(run):
    run.submit()
    for value in range(500):
        say(run, value, token=f"t.{value + 1}")
    assert run.open(*[waits()] * 1000) == "opened"
    for value in range(500, 999):
        assert say(run, value, token=f"t.{value + 1}")[1].code == "recorded"
    assert say(run, 999, token="t.1000")[1].code == "decided"

    journal = run.redis.hgetall(run.keys.journal("r"))
    assert [journal[f"0.{p}"] for p in range(1000)] == [f"v{p}" for p in range(1000)]


def test_memory_and_time_of_a_message_stay_the_same_with_ten_thousand_unread(run):
    run.submit()
    used, us = [0], []
    for value in range(MESSAGES):
        say(run, f'"{value:040}"', token=f"t.{value + 1}")
        if (value + 1) % CHUNK == 0:
            used.append(run.redis.memory_usage(run.keys.unread("r", "jobs"), samples=0))
            us.append(run.redis.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])
            run.redis.config_resetstat()

    per_message = [(after - before) / CHUNK for before, after in pairwise(used)]
    assert max(per_message) < 43 + 5, f"bytes a message of 43: {per_message}"
    # The same work, however many there are. The quickest of each half: others use this machine too.
    half = len(us) // 2
    assert min(us[half:]) < 3 * min(us[:half]), f"us a message: {us}"
    assert run.open(waits()) == "answered"


# --- a retry of the run ----------------------------------------------------------------


def failed(run: Runs, n: int) -> None:
    assert run.complete(seen=f"n{n}", state="failed", error="{}") == "completed"


def again(run: Runs, n: int) -> None:
    code = run.store.retry(run.id, n, finished_ms=run.field("finished_ms") or "", token=f"retry{next(run._number)}")
    assert code == "retried"


def test_a_retry_gives_back_what_the_forgotten_awaits_had_received(run):
    run.submit()
    for value in range(1, 6):
        say(run, value)
    assert run.open(waits()) == "answered"
    assert run.open(waits(), part(), waits(), n=1, policy="all") == "opened"
    run.begin(1, n=1)
    assert run.fail(1, n=1) == "decided"
    assert run.open(waits(), n=2) == "answered"
    failed(run, 2)
    assert unread(run) == ["5"]

    again(run, 1)

    assert unread(run) == ["2", "3", "4", "5"]
    assert run.outcome() == "v1"
    assert [run.redis.pttl(key) for key in (run.keys.channels("r"), run.keys.unread("r", "jobs"))] == [-1, -1]
    assert run.open(waits(), waits(), n=1, seen=run.field("seen"), nonce="n1g1") == "answered"
    assert (run.outcome(0, 1), run.outcome(1, 1), unread(run)) == ("v2", "v3", ["4", "5"])


def test_a_retry_of_a_quorum_asks_anew_for_what_it_had_received(run):
    run.submit()
    say(run, 1)
    assert run.open(waits(), part(), part(), policy="quorum", need=3) == "opened"
    run.begin(1)
    run.done(1)
    run.begin(2)
    assert run.fail(2) == "decided"
    assert run.redis.hget(run.keys.journal("r"), "0:order") == "0,1"
    failed(run, 0)

    again(run, 0)

    assert (unread(run), run.redis.hget(run.keys.journal("r"), "0:order")) == (["1"], "1")
    code = run.open(
        waits(), part(), part(), policy="quorum", need=3, seen=run.field("seen"), nonce="n0g1", fingerprint="quorum(3)"
    )
    assert (code, run.outcome(0), run.outcome(1)) == ("opened", "v1", "v1")
    assert run.redis.hget(run.keys.journal("r"), "0:order") == "1,0"


def test_a_retry_keeps_several_channels_apart(run):
    run.submit()
    for value, name in ((1, "a"), (2, "b"), (3, "a"), (4, "b")):
        say(run, value, name)
    assert run.open(waits("b"), waits("a"), waits("a"), waits("b")) == "answered"
    failed(run, 0)

    again(run, 0)

    assert (unread(run, "a"), unread(run, "b"), channels(run)) == (["1", "3"], ["2", "4"], {"a", "b"})


# --- in a workflow ---------------------------------------------------------------------

jobs = channel("jobs", int)
days = channel("days", date)


@step(name="channels.do")
def do(what: str = "") -> int:
    return 1


@workflow(name="channels.loop")
async def loop(run: Run, most: int) -> list[int]:
    return [await jobs.receive() for _ in range(most)]


@workflow(name="channels.joined")
async def joined(run: Run, kind: str) -> Any:
    match kind:
        case "fan_out":
            result = await fan_out(do.s(), jobs.receive(), jobs.receive())
            return list(result.results)
        case "fan_out_fail":
            return list(await fan_out_fail(jobs.receive(), days.receive(), jobs.receive()))
        case "race":
            won = await race(jobs.receive(), run.sleep(3600))
            return [won.index, won.name, won.value]
        case "quorum":
            return await quorum(2, do.s(), jobs.receive(), promise("never", str))
        case _:
            return await with_timeout(fan_out_fail(jobs.receive(), jobs.receive()), 3600)


@workflow(name="channels.timed")
async def timed(run: Run, own: bool) -> list[Any]:
    said: list[Any] = []
    for _ in range(2):
        try:
            part = jobs.receive()
            said.append(await (part.within(3600) if own else with_timeout(part, 3600)))
        except StepTimeout as error:
            said.append([error.step, error.message])
        except TimedOut as error:
            said.append(str(error))
    return said


@pytest.fixture
def turns(redis_client, valkey):
    """A run in this process, of which the world outside knows too."""
    with current_app("channels") as app:
        made = Turns(app, redis_client)
        app.__dict__["_celeriac"] = made.engine
        here.use(valkey.url)
        here.store().settings = made.store.settings
        here.store().keys = made.keys
        before = here._follow
        here.follow_with(engines.of(app).follow)
        yield made
        here._follow = before
        here.use(None)
        here._store.cache_clear()


def begin(turns: Turns, flow: Any, *args: Any) -> None:
    turns.store.submit(
        turns.id, workflow=flow.name, input_json=json.dumps([args, {}]), digest="d", token="t", retention_ms=60_000
    )
    turns.take()


def result(turns: Turns) -> Any:
    turns.take()
    assert turns.state == "completed", turns.field("error")
    return json.loads(turns.field("result") or "null")


def test_a_run_that_waits_for_a_message_is_suspended_and_goes_on_with_it(turns):
    begin(turns, loop, 2)
    assert (turns.state, turns.sent, turns.due()) == ("suspended", [], set())
    assert [status.channel for status in get_status("r").steps] == ["jobs"]

    assert jobs.send("r", 5) is Answer.ACCEPTED
    assert turns.sent == [("r", 0)]
    assert send("r", "jobs", 6) == "accepted"

    assert result(turns) == [5, 6]
    assert jobs.send("r", 7) is Answer.LATE
    assert jobs.send("nobody", 7) is Answer.UNKNOWN


def test_messages_that_are_there_already_are_read_in_one_go_and_a_long_backlog_in_several(turns):
    turns.store.submit(turns.id, workflow=loop.name, input_json="[[120],{}]", digest="d", token="t")
    for value in range(120):
        jobs.send("r", value)
    assert turns.sent == []

    turns.take()
    assert (turns.state, turns.sent) == ("suspended", [("r", 0)]), "it makes room for others, and goes on"
    turns.take()

    assert result(turns) == list(range(120))


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("fan_out", "running", [1, 5, 6]),
        ("fan_out_fail", "suspended", [5, "2026-11-24", 6]),
        ("race", "suspended", [0, "jobs", 5]),
        ("quorum", "running", [[1, 5], [0, 1]]),
        ("with_timeout", "suspended", [5, 6]),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_a_receive_is_a_part_of_any_join(turns, kind, state, expected, early):
    if not early:
        begin(turns, joined, kind)
        assert turns.state == state
    else:
        turns.store.submit(turns.id, workflow=joined.name, input_json=f'[["{kind}"],{{}}]', digest="d", token="t")
    jobs.send("r", 5)
    jobs.send("r", 6)
    days.send("r", date(2026, 11, 24))
    if early:
        turns.take()
    if state == "running":
        nonce = turns.redis.hget(turns.keys.join("r", 0), "nonce")
        turns.begin(0, "t", nonce=nonce)
        assert turns.finish("done", 0, "t", nonce=nonce).code == "decided"

    assert result(turns) == expected


@pytest.mark.parametrize("own", [True, False])
def test_a_time_that_is_up_and_then_a_message(turns, own):
    begin(turns, timed, own)
    assert turns.fire_only().code == "decided"
    jobs.send("r", 5)

    up = ["jobs", "its time of 3600 s was up"] if own else "await(channel jobs) was not done within 3600 s"
    assert result(turns) == [up, 5]


def test_a_message_that_a_failed_await_had_received_is_received_again_after_a_retry(turns):
    @workflow(name="channels.fails")
    async def fails(run: Run) -> list[int]:
        got = list(await fan_out_fail(jobs.receive(), do.s()))
        return [*got, await jobs.receive()]

    begin(turns, fails)
    nonce = turns.redis.hget(turns.keys.join("r", 0), "nonce")
    jobs.send("r", 5)
    jobs.send("r", 6)
    turns.begin(1, "t", nonce=nonce)
    turns.finish("failed", 1, "t", nonce=nonce)
    turns.take()
    assert turns.state == "failed"

    retry(turns.store, "r")
    turns.take()
    nonce = turns.redis.hget(turns.keys.join("r", 0), "nonce")
    turns.begin(1, "u", nonce=nonce)
    assert turns.finish("done", 1, "u", nonce=nonce).code == "decided"

    assert result(turns) == [5, 1, 6]


def test_a_message_that_does_not_fit_parks_the_run_and_undoes_nothing(turns):
    begin(turns, loop, 1)
    send("r", "jobs", "perhaps")
    turns.take()

    assert "channel jobs" in turns.parked.message


@pytest.mark.parametrize("value", ["perhaps", 3.5, None])
def test_a_message_of_another_type_is_refused_where_the_type_is_known(turns, value):
    begin(turns, loop, 1)
    with pytest.raises(PayloadError, match="channel jobs"):
        jobs.send("r", value)

    assert jobs.send("r", 1) is Answer.ACCEPTED


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, "\ud800"])
def test_what_is_not_json_is_refused_where_the_type_is_not_known(turns, value):
    with pytest.raises(PayloadError, match=r"a message must be JSON.*channel's own send\(\)"):
        send("r", "jobs", value)


def test_mistakes_are_said():
    for name in ["", "x" * 201, "a\nb", 5]:
        with pytest.raises(ConfigError, match="the name of a channel"):
            channel(name, bool)
    with pytest.raises(ConfigError, match="use a dataclass"):
        channel("x", type("Odd", (), {}))
    for time_s in [0, -1, float("nan"), float("inf")]:
        with pytest.raises(ConfigError, match="more than 0 seconds"):
            jobs.receive().within(time_s)
    with pytest.raises(ConfigError, match="run id"):
        jobs.send("not an id", 1)


def test_a_workflow_can_not_send(turns):
    @workflow(name="channels.sends")
    async def sends(run: Run) -> None:
        jobs.send("r", 1)

    begin(turns, sends)

    error = get_status("r").error
    assert (turns.state, error.error_type) == ("failed", "status.errors.ConfigError")
    assert "let a step do it" in error.message


# --- senders ---------------------------------------------------------------------------


def test_a_sender_has_one_message_on_its_way_and_counts_up():
    with senders.token() as first, senders.token() as beside:
        pass
    with senders.token() as second, senders.token() as besides:
        pass

    assert first.partition(".")[0] != beside.partition(".")[0]
    numbers = {token.partition(".")[0]: int(token.partition(".")[2]) for token in (first, beside)}
    later = {token.partition(".")[0]: int(token.partition(".")[2]) for token in (second, besides)}
    assert later == {sender: number + 1 for sender, number in numbers.items()}


def test_a_forked_process_has_senders_of_its_own():
    with senders.token() as mine:
        pass
    ends = os.pipe()
    child = os.fork()
    if child == 0:
        with senders.token() as its:
            os.write(ends[1], its.encode())
        os._exit(0)
    os.waitpid(child, 0)

    its = os.read(ends[0], 100).decode()
    assert its.partition(".")[0] != mine.partition(".")[0]


def test_senders_are_used_again_so_that_a_run_need_not_remember_many():
    seen = set()
    for _ in count():
        with senders.token() as token:
            seen.add(token.partition(".")[0])
        if token.endswith("0"):
            break

    assert len(seen) == 1
