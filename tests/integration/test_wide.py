"""Fan-outs of many calls of one step: filed as a batch is, and in all else what they would be as single messages."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from batches import Batches
from canvas import Run, fan_out, fan_out_fail, quorum, step, with_timeout, workflow
from canvas.payload import compact
from canvas.submitted import NAME, plan_of, value_of
from canvas.wide import CHUNK, WINDOW
from core import current_app
from counting import pushes
from leaks import keys_without_end
from runs import ERROR
from status import get_status, operating
from status.errors import TimedOut
from status.reading import Reader
from status.records import PartRef, Timer, Wanted

MANY = 100
ALL = [2 * n for n in range(MANY)]


@step(name="wide.double")
def double(n: int, *, plus: int = 0) -> int:
    return 2 * n + plus


@workflow(name="wide.all")
async def all_of(run: Run, parts: int) -> list[int]:
    return list(await fan_out_fail(*(double.s(n) for n in range(parts))))


@workflow(name="wide.each")
async def each(run: Run, parts: int) -> list[Any]:
    found = await fan_out(*(double.s(n) for n in range(parts)))
    return [list(found.results), [index for index, _ in found.bad]]


@workflow(name="wide.some")
async def some(run: Run, parts: int) -> list[Any]:
    return [list(one) for one in await quorum(40, *(double.s(n) for n in range(parts)))]


@pytest.fixture
def wide(redis_client) -> Iterator[Batches]:
    with current_app() as app:
        yield Batches(app, redis_client)


def started(wide: Batches, flow: Any = all_of, parts: int = MANY) -> Batches:
    return wide.started(flow, parts, None)


def field(wide: Batches, name: str) -> str | None:
    found: str | None = wide.redis.hget(wide.keys.join(wide.id, 0), name)
    return found


def states_of(wide: Batches) -> Counter[str]:
    """How many parts the timeline shows in which state."""
    return Counter(str(one.state) for one in Reader(wide.redis, wide.keys).status(wide.id).steps)


def test_values_come_in_the_order_of_the_calls_and_few_are_messages_at_once(wide):
    assert started(wide).play() == ALL
    assert wide.most == WINDOW
    assert wide.bodies == list(range(MANY))


def test_every_outcome_of_a_fan_out_good_or_bad(wide):
    assert started(wide, each).play(bad=(3, 99)) == [[None if n in (3, 99) else 2 * n for n in range(MANY)], [3, 99]]


def test_a_quorum_is_decided_by_its_last_success_and_stops_the_rest(wide):
    assert started(wide, some).play() == [[n, 2 * n] for n in range(40)]
    assert states_of(wide) == {"done": 40, "stopped": 60}


def test_the_journal_asks_for_the_same_as_before(wide):
    started(wide).play()
    entry = wide.redis.hget(wide.keys.journal(wide.id), "0")
    assert '"fp":"fan_out_fail(wide.double*100)"' in entry
    assert '"n":' not in entry, "its parts are shown one by one, not counted as those of a batch are"


def test_a_run_that_had_sent_each_part_when_it_was_opened_goes_on(wide, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr("canvas.wide.LEAST", 10**9)
        started(wide)
    assert len(wide.queue) == MANY
    wide.play_one()
    wide.queue.clear()

    wide.take()
    assert len(wide.queue) == MANY - 1, "nobody has claimed these"
    assert wide.play() == ALL


def test_as_a_message_of_a_long_step_begins_more_parts_are_sent(wide):
    started(wide)
    ref, _ = wide.queue.pop(0)

    grant = wide.store.begin(ref, token="a", where="w", widens_by=3)

    assert [part.ref.p for part in grant.publish] == ["32", "33", "34"]
    assert wide.window == {str(p) for p in range(WINDOW + 3)}
    assert {"0.32", "0.33", "0.34"} <= wide.due()


def test_the_same_parts_are_given_again_if_the_reply_was_lost(wide):
    started(wide)
    ref, _ = wide.queue.pop(0)
    first = wide.store.begin(ref, token="a", where="w", widens_by=3)
    assert wide.store.begin(first.publish[1].ref, token="else", where="w").granted

    again = wide.store.begin(ref, token="a", where="w", widens_by=3)

    assert [part.ref.p for part in again.publish] == ["32", "34"], "somebody else has the one between"
    assert again.publish[0] == first.publish[0]
    assert len(wide.window) == WINDOW + 3


def test_whoever_is_refused_lets_nothing_in(wide):
    started(wide)
    ref, _ = wide.queue.pop(0)
    wide.store.begin(ref, token="a", where="w")

    assert wide.store.begin(ref, token="b", where="w", widens_by=3).publish == ()
    assert len(wide.window) == WINDOW


def test_a_window_that_widens_has_no_part_twice_and_forgets_none(wide):
    wide.widens_by = 4
    assert started(wide).play() == ALL
    assert wide.bodies == list(range(MANY))


def test_a_process_that_dies_before_it_has_sent_what_may_start_leaves_it_to_the_sweep(wide):
    started(wide)
    ref, _ = wide.queue.pop(0)
    wide.store.begin(ref, token="a", where="w", widens_by=3)
    wide.queue.clear()

    wide.sweep()

    sent = {int(ref.p) for ref, _ in wide.queue}
    assert sent == set(range(WINDOW + 3)), "with the one whose claim nobody vouches for"
    assert wide.play() == ALL


def test_whoever_ends_a_part_may_run_the_next_one_itself(wide):
    started(wide)
    ref, _ = wide.queue.pop(0)
    wide.store.begin(ref, token="a", where="w")
    ended = wide.store.finish(
        ref, token="a", kind="done", outcome="v0", began_ms=1, wanted=Wanted("+", "b", "w", 0, -1)
    )

    assert ended.grant is not None
    (part,) = ended.publish
    assert part.ref.p == "32"
    spec = wide.engine.spec_of(part)
    assert (spec["args"], spec["kwargs"], spec["batch"]) == ([32], {}, "wide")


def test_arguments_go_as_they_are_given_by_place_and_by_name(wide):
    @workflow(name="wide.named")
    async def named(run: Run, parts: int) -> int:
        await fan_out_fail(*(double.s(n, plus=n) if n % 2 else double.s(n) for n in range(parts)))
        return 0

    started(wide, named)
    rows = wide.store.filed(wide.id, 0, field(wide, "nonce") or "", {"6": 1, "7": 1})
    specs = [wide.engine.spec_of(row) for row in rows]
    assert [(spec["args"], spec["kwargs"]) for spec in specs] == [([6], {}), ([7], {"plus": 7})]


def test_the_first_failure_stops_those_that_run_and_those_that_had_yet_to_begin(wide):
    started(wide)
    busy, _ = wide.queue.pop(0)
    wide.store.begin(busy, token="busy", where="w")

    wide.play_one(bad=True)

    assert wide.state == "failed"
    states = states_of(wide)
    assert states == {"running": 1, "failed": 1, "stopped": MANY - 2}
    stopped = [event for event in Reader(wide.redis, wide.keys).history(wide.id) if event.kind == "step.stopped"]
    assert len(stopped) == MANY - 2
    wide.store.finish(busy, token="busy", kind="done", outcome="v0", began_ms=1)
    assert wide.loose() == 0
    assert keys_without_end(wide.redis) == []


def test_all_parts_are_in_the_timeline_from_the_beginning(wide):
    started(wide)
    assert states_of(wide) == {"waiting": MANY}


def test_more_parts_than_a_batch_shows_stay_in_the_timeline(wide):
    started(wide, parts=1100).play()
    assert states_of(wide) == {"done": 1100}


def test_a_retried_run_does_not_repeat_the_parts_that_had_succeeded(wide):
    started(wide)
    for _ in range(50):
        wide.play_one()
    wide.play_one(bad=True)
    while wide.queue:
        wide.play_one()
    assert wide.state == "failed"
    done = set(wide.bodies[:50])
    operating.retry(wide.store, wide.id)
    wide.take()
    wide.bodies.clear()

    assert wide.play() == ALL
    assert set(wide.bodies) == set(range(MANY)) - done


def test_a_retry_of_a_run_that_had_sent_each_part_goes_on_in_the_new_way(wide, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr("canvas.wide.LEAST", 10**9)
        started(wide)
        for _ in range(50):
            wide.play_one()
        wide.play_one(bad=True)
        wide.queue.clear()
    operating.retry(wide.store, wide.id)
    wide.take()

    assert len(wide.queue) == WINDOW
    assert wide.play() == ALL
    assert sorted(wide.bodies) == sorted([*range(MANY), 50]), "the one that failed once more, no other"


def test_its_time_ends_what_has_not(wide):
    @workflow(name="wide.in_time")
    async def in_time(run: Run, parts: int) -> str:
        try:
            await with_timeout(fan_out(*(double.s(n) for n in range(parts))), 5)
        except TimedOut as error:
            return str(error)
        return ""

    started(wide, in_time)
    (timer,) = map(Timer.parse, wide.redis.zrange(wide.keys.timers(wide.shard), 0, -1))
    wide.redis.zadd(wide.keys.timers(wide.shard), {"|".join(timer): 1})
    assert wide.store.fire(timer, token="now").code == "decided"
    wide.take()

    assert "fan_out(wide.double*100) was not done within 5 s" in str(wide.field("result"))
    assert states_of(wide) == {"stopped": MANY}


def test_a_cancel_ends_what_has_not(wide):
    started(wide)
    wide.cancel()
    wide.take()

    assert wide.state == "cancelled"
    assert states_of(wide) == {"stopped": MANY}
    assert keys_without_end(wide.redis) == []
    assert wide.due() == set()


def test_a_success_that_comes_after_the_decision_is_kept_for_a_saga(wide):
    started(wide)
    late, _ = wide.queue.pop(0)
    wide.store.begin(late, token="late", where="w")
    wide.play_one(bad=True)

    assert wide.store.finish(late, token="late", kind="done", outcome="v0", began_ms=1).code == "late"
    assert wide.redis.hgetall(wide.keys.late(wide.id)) == {"0.0": "v0"}


def test_a_long_argument_is_not_sent_with_those_of_others(wide):
    @step(name="wide.length")
    def length(text: str) -> int:
        return len(text)

    @workflow(name="wide.lengths")
    async def lengths(run: Run, parts: int) -> int:
        return sum(await fan_out_fail(*(length.s("x" * 5000) for _ in range(parts))))

    started(wide, lengths)
    assert all(len(field(wide, f"s{p}") or "") < 6000 for p in range(WINDOW))
    assert field(wide, "chunk") == "1"


def test_redis_holds_no_arguments_of_parts_that_have_ended(wide):
    started(wide, parts=20 * CHUNK)
    while len(wide.bodies) < 20 * CHUNK - 1:
        wide.play_one()
    assert len(wide.redis.hgetall(wide.keys.join(wide.id, 0))) < 40
    assert not any(wide.redis.lrange(wide.keys.join(wide.id, 0) + ":items", 0, -1))


def test_a_fan_out_that_is_submitted_by_itself_needs_nobody_who_knows_its_step(wide):
    plan = plan_of(fan_out(*(double.s(n) for n in range(MANY))).recipe())
    wide.store.submit(wide.id, workflow=NAME, input_json=compact([[plan], {}]), digest="d", token="t")
    wide.take()
    assert len(wide.queue) == WINDOW
    while wide.queue:
        wide.play_one(bad=wide.queue[0][1][0] == 7)

    assert wide.state == "completed"
    found = value_of(fan_out(*(double.s(n) for n in range(MANY))).recipe(), wide.redis.hgetall(wide.keys.journal("r")))
    assert list(found.results) == [None if n == 7 else 2 * n for n in range(MANY)]
    assert [index for index, _ in found.bad] == [7]


def test_a_failure_of_who_no_longer_holds_the_claim_counts_for_nothing(wide):
    started(wide)
    ref, _ = wide.queue[0]
    wide.store.begin(ref, token="suspended", where="w1")
    wide.tick(10)
    wide.play_one(token="new")

    assert wide.store.finish(ref, token="suspended", kind="failed", outcome=ERROR, began_ms=1).code == "recorded"
    assert wide.play() == ALL


# --- real workers ----------------------------------------------------------------------


def most_at_once(spans: list[list[float]]) -> int:
    """How many of these (begin, end) lie over each other."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, step_ in edges:
        now += step_
        most = max(most, now)
    return most


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine a step of microseconds may take its process 20 ms.
    monkeypatch.setenv("CELERIAC_IN_PLACE_MS", "1000")


def test_long_steps_soon_have_all_the_places_that_there_are(flow, workers):
    workers(pool="threads", concurrency=100)

    spans = flow.spans_of.submit(200, 1.0).result(timeout_s=60)

    assert most_at_once(spans) > 80


def test_one_long_step_among_short_ones_keeps_no_other_waiting(flow, workers):
    workers(pool="threads", concurrency=60)
    flow.spans_of.submit(100, 0.0).result(timeout_s=60)  # this process knows the step to be short

    spans = flow.every_other.submit(100, 2.0).result(timeout_s=60)

    assert most_at_once(spans) > 40


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 2), ("solo", 1)])
@pytest.mark.usefixtures("_short")
def test_short_steps_of_a_fan_out_are_few_messages(flow, workers, redis_client, pool, concurrency):
    workers(pool=pool, concurrency=concurrency)
    flow.fan_of.submit(50).result(timeout_s=60)
    before = pushes(redis_client)

    rows = flow.fan_of.submit(300, run_id="r").result(timeout_s=60)

    assert [row[0] for row in rows] == list(range(300))
    assert [row[2] for row in rows] == [f"r/0.{n}" for n in range(300)]
    assert {row[4] for row in rows} == {1}
    assert pushes(redis_client) - before < 150
    assert Counter(one.state for one in get_status("r").steps) == {"done": 300}


def test_a_fan_out_of_two_steps_is_sent_call_by_call(wide):
    @step(name="wide.other")
    def other(n: int) -> int:
        return n

    @workflow(name="wide.mixed")
    async def mixed(run: Run, parts: int) -> int:
        return sum(await fan_out_fail(*((double if n % 2 else other).s(n) for n in range(parts))))

    started(wide, mixed)
    assert len(wide.queue) == MANY
    assert {type(ref) for ref, _ in wide.queue} == {PartRef}
