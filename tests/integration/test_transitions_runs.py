"""submit, open_join, fire, cancel, complete, settle and the sweep. Real Redis, no worker."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

import itertools
import json

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from canvas.parking import seen_of
from leaks import keys_without_end
from runs import ERROR, Runs, part, refs, sleep, stops
from status.errors import ConfigError, RunConflict, RunNotFound
from status.reading import Reader
from status.records import DeadClaim, News, OwedPart, OwedTurn, Remark
from status.states import State

OLDEN_MS = 1


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


# --- submit ----------------------------------------------------------------------------


def test_a_run_is_submitted_once_and_owes_a_turn(run):
    assert run.submit() is True
    assert run.state == "pending"
    assert run.due() == {""}


def test_submit_reply_lost(run):
    run.submit()
    before = run.everything()

    assert run.submit() is True
    assert run.everything() == before


def test_the_same_id_again_gives_the_run_that_exists(run):
    run.submit()
    before = run.everything()

    assert run.submit(token="other") is False
    assert run.everything() == before


def test_the_same_id_with_other_arguments_is_a_conflict(run):
    run.submit()
    before = run.everything()

    with pytest.raises(RunConflict, match=r"'r' is taken by a run \(pending\)"):
        run.submit(token="other", digest="e")
    assert run.everything() == before


def test_another_number_of_shards_is_refused(redis_client):
    Runs(redis_client, shards=4).store.check_layout()
    Runs(redis_client, shards=4).store.check_layout()

    with pytest.raises(ConfigError, match="holds runs on 4 shards, CELERIAC_SHARDS says 5: set it to 4"):
        Runs(redis_client, shards=5).store.check_layout()


# --- open_join -------------------------------------------------------------------------


def test_open_join_files_every_part_in_due(run):
    run.started(part(), part(), part(after_ms=60_000), sleep())

    assert run.due() == {"0.0", "0.1"}
    assert run.timers() == {"start 2", "sleep 3"}
    assert run.state == "running"


def test_open_join_reply_lost(run):
    run.started(part(), part())
    before = run.everything()

    assert run.open(part(), part()) == "opened"
    assert run.everything() == before


def test_open_join_reply_lost_and_everything_over_by_then(run):
    run.started(part())
    run.begin(0, "a")
    run.done(0, "a")

    assert run.open(part()) in {"answered", "moved"}
    assert run.field("open") == ""


def test_two_turns_open_once(run):
    run.started(part(), part(), part(after_ms=60_000))
    run.begin(0, "a")
    before = run.everything()

    second = run.opening(part(), part(), part(after_ms=60_000), nonce="other")

    assert (second.code, second.nonce, dict(second.waiting)) == ("exists", "n0", {"1": 1})
    assert run.everything() == before


def test_a_turn_publishes_the_attempt_that_is_wanted(run):
    run.started(part(), part())
    run.begin(0, "a")
    run.retry(0, "a")
    run.fire("retry", 0)

    assert dict(run.opening(part(), part(), nonce="other").waiting) == {"0": 2, "1": 1}


def test_slow_turn_after_join_expired(run):
    run.started(part())
    run.begin(0, "a")
    run.done(0, "a")
    run.redis.delete(run.keys.join("r", 0))
    before = run.everything()

    assert run.open(part(), nonce="slow") == "moved"
    assert run.everything() == before


@pytest.mark.parametrize("seen", ["", "nonsense", "n1"])
def test_a_turn_that_has_read_another_journal_starts_over(run, seen):
    run.started(part())
    run.begin(0, "a")
    run.done(0, "a")
    before = run.everything()

    assert run.open(part(), n=1, seen=seen) == "moved"
    assert run.everything() == before


def test_stale_turn_cannot_move_status_back(run):
    news = News(("first", 0.1, "{}"), [Remark("run.status", "first")])
    later = News(("second", 0.5, "{}"))
    run.submit()
    run.open(part(), news=news)
    run.begin(0, "a")
    run.done(0, "a")
    run.open(part(), n=1, news=later)
    before = run.everything()

    assert run.open(part(), nonce="x", news=news) == "moved"
    assert run.open(part(), n=1, nonce="x", news=News(("third", 0.9, "{}"))) == "exists"
    assert run.complete(seen="n0", news=news) == "moved"
    assert run.everything() == before
    assert run.field("phase") == "second"


def test_old_code_turn_beside_new(run):
    run.started(part())
    before = run.everything()

    other = run.opening(part(), nonce="x", fingerprint="race(s)")

    assert (other.code, other.found) == ("foreign", "all(1)")
    assert run.everything() == before


def test_nothing_opens_in_a_run_that_has_ended_or_never_was(run):
    assert run.open(part()) == "gone"
    run.submit()
    run.complete(seen="")
    before = run.everything()

    assert run.open(part()) == "gone"
    assert run.everything() == before


def test_a_run_that_goes_on_is_no_longer_shown_as_parked(run):
    run.submit()
    assert run.store.park("r", seen="", error='{"message":"other code"}')
    assert (run.state, run.field("error")) == ("suspended", '{"message":"other code"}')

    run.open(part())

    assert (run.state, run.field("error")) == ("running", None)


def test_parked_again_is_suspended_again(run):
    run.submit()
    for n in range(2):
        assert run.store.park("r", seen=f"n{n - 1}" if n else "", error="{}")
        assert run.state == "suspended"
        run.open(part(), n=n)
        run.begin(0, "a", n=n)
        run.done(0, "a", n=n)


@pytest.mark.parametrize("goes_on", ["opens", "completes", "parks"])
def test_a_turn_that_read_a_decision_which_redis_lost_records_nothing(run, goes_on):
    run.submit()
    run.open(part(), part(), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    before = run.saved()
    run.finish("done", 0, "a", outcome="v1")
    read = seen_of(run.store.load(run.id))
    run.restored(before)
    run.finish("done", 1, "b", outcome="v2")

    did = {
        "opens": lambda: run.open(part(), n=1, seen=read),
        "completes": lambda: run.complete(seen=read),
        "parks": lambda: run.store.park(run.id, seen=read, error="{}"),
    }[goes_on]()

    assert did in {"moved", False}
    assert run.complete(seen=seen_of(run.store.load(run.id))) == "completed"


def test_a_stale_turn_can_not_park(run):
    run.started(part())
    run.begin(0, "a")
    run.done(0, "a")
    before = run.everything()

    assert run.store.park("r", seen="", error="{}") is False
    assert run.everything() == before


# --- timers ----------------------------------------------------------------------------


def test_a_timer_fires_once_and_not_before_its_time(run):
    run.started(part(after_ms=60_000))
    from status.records import Timer

    early = run.store.fire(Timer("start", "r", "0", "0", "n0"), token="t")
    assert early.code == "none"
    assert run.timers() == {"start 0"}

    first, second = run.fire("start", 0), run.fire("start", 0)

    assert refs(first) == [("0", 1)]
    assert (second.code, second.publish) == ("none", ())
    assert run.due() == {"0.0"}


def test_finisher_dies_between_take_and_publish(run):
    """What a timer starts is due before anybody publishes it."""
    run.started(part(after_ms=60_000))
    run.fire("start", 0)
    run.tick(4)

    owed = run.store.repair("r", "0", "0")

    assert isinstance(owed, OwedPart)
    assert owed.part.ref == run.ref()


def test_a_delayed_part_of_a_race_starts_when_all_before_it_have_failed(run):
    run.started(part(), part(after_ms=60_000), part(after_ms=90_000), policy="first")
    run.begin(0, "a")

    first = run.finish("failed", 0, "a")
    run.begin(1, "b")
    second = run.finish("failed", 1, "b")

    assert (refs(first), refs(second)) == ([("1", 1)], [("2", 1)])
    assert run.timers() == set()


def test_a_delayed_part_of_a_race_waits_while_one_before_it_may_succeed(run):
    run.started(part(), part(), part(after_ms=60_000), policy="first")
    run.begin(0, "a")

    assert refs(run.finish("failed", 0, "a")) == []
    assert run.timers() == {"start 2"}


@pytest.mark.parametrize("policy", ["all", "settle"])
def test_a_delayed_part_of_another_join_waits_for_its_time(run, policy):
    run.started(part(), part(after_ms=60_000), policy=policy)
    run.begin(0, "a")

    assert refs(run.finish("done", 0, "a")) == []
    assert run.timers() == {"start 1"}


def test_a_race_goes_to_its_delayed_part_when_the_first_one_times_out(run):
    run.started(part(within_ms=1000), part(after_ms=60_000), policy="first")

    assert refs(run.fire("within", 0)) == [("1", 1)]


def test_a_sleep_is_a_part_that_is_done_by_its_timer(run):
    run.started(sleep(), state="suspended")
    assert run.state == "suspended"

    assert run.fire("sleep", 0).code == "decided"
    assert (run.outcome(), run.timers(), run.due()) == ("vnull", set(), {""})


@pytest.mark.parametrize("begun", [True, False])
def test_within_ends_a_part_whether_it_runs_or_waits(run, begun):
    run.started(part(within_ms=1000))
    if begun:
        run.begin(0, "a")

    fired = run.fire("within", 0)

    assert fired.code == "decided"
    assert stops(fired) == (["a"] if begun else [])
    assert run.outcome() == "t"
    assert run.begin(0, "b") in {"ended", "gone"}


def test_within_counts_from_when_a_delayed_part_starts(run):
    run.started(part(after_ms=60_000, within_ms=1000))
    assert run.timers() == {"start 0"}

    run.fire("start", 0)

    assert run.timers() == {"within 0"}


@pytest.mark.parametrize("after_ms", [0, 60_000])
def test_within_is_not_prolonged_by_a_process_that_dies_or_a_retry(run, after_ms):
    run.started(part(after_ms=after_ms, within_ms=60_000))
    if after_ms:
        run.fire("start", 0)
    ends = run.redis.zrange(run.keys.timers(run.shard), 0, -1, withscores=True)
    run.redis.zadd(run.keys.timers(run.shard), {ends[0][0]: ends[0][1] - 30_000})
    before = run.redis.zrange(run.keys.timers(run.shard), 0, -1, withscores=True)

    run.begin(0, "a")
    run.release(0, "a")
    run.begin(0, "b")
    run.retry(0, "b")
    run.fire("retry", 0)

    assert run.redis.zrange(run.keys.timers(run.shard), 0, -1, withscores=True) == before


def test_an_attempt_that_takes_too_long_is_stopped_and_made_again(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=5000, interruptible=True)

    fired = run.fire("attempt", 0)

    assert (fired.code, stops(fired)) == ("recorded", ["a"])
    assert run.timers() == {"retry 0"}
    run.release(0, "a")
    assert refs(run.fire("retry", 0)) == [("0", 2)]


def test_the_last_attempt_that_takes_too_long_is_the_end(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=-1)

    assert run.fire("attempt", 0).code == "decided"
    assert run.outcome() == "t"


def test_an_attempts_limit_goes_with_its_attempt(run):
    run.started(part(), part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=5000)
    run.retry(0, "a")
    run.fire("retry", 0)
    run.begin(0, "b", attempt=2)

    assert run.timers() == set()
    assert run.fire("attempt", 0).code == "none"


def test_an_attempts_limit_of_one_claim_does_not_end_another(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=60_000, retry_in_ms=5000)
    run.release(0, "a")
    run.begin(0, "b", timeout_ms=60_000, retry_in_ms=5000)

    assert run.timers() == {"attempt 0"}
    assert stops(run.fire("attempt", 0)) == ["b"]


def test_a_joins_time_ends_it_and_stops_its_parts(run):
    run.started(part(), part(after_ms=60_000), part(within_ms=60_000), timeout_ms=60_000)
    run.begin(0, "a")

    fired = run.fire("join")

    assert (fired.code, stops(fired)) == ("decided", ["a"])
    assert run.decision() == ("timed_out", "")
    assert run.timers() == set()


def test_a_joins_time_goes_when_it_is_decided(run):
    run.started(part(), timeout_ms=60_000)
    run.begin(0, "a")
    run.done(0, "a")

    assert run.timers() == set()


def test_timer_and_finish_same_ms(run):
    for order in ("finish first", "timer first"):
        run.redis.flushall()
        run.started(part(within_ms=1000))
        run.begin(0, "a")
        if order == "finish first":
            assert run.done(0, "a") == "decided"
            assert run.fire("within", 0).code == "none"
            assert run.outcome() == "v1"
        else:
            assert run.fire("within", 0).code == "decided"
            assert run.done(0, "a") in {"late", "gone"}
            assert run.outcome() == "t"
        assert run.loose() == 0


@pytest.mark.parametrize("crash", ["reply lost", "dies before it cancels"])
def test_a_runs_deadline_is_not_lost_with_whoever_fires_it(run, crash):
    run.submit(timeout_ms=60_000)
    run.open(part())
    assert run.fire("run", n="", token="t").code == "expired"

    again = run.fire("run", n="", token="t" if crash == "reply lost" else "u")

    assert again.code == "expired"
    run.cancel(code=408)
    assert run.decision() == ("cancelled", "408|enough")
    assert run.timers() == set()


def test_a_deadline_goes_with_its_run(run):
    run.submit(timeout_ms=60_000)

    run.complete(seen="")

    assert run.timers() == set()


# --- cancel ----------------------------------------------------------------------------


def test_cancel_decides_the_open_join(run):
    run.started(part(), part(after_ms=60_000))
    run.begin(0, "a")

    cancelled = run.cancel()

    assert (cancelled.code, stops(cancelled)) == ("decided", ["a"])
    assert run.decision() == ("cancelled", "409|enough")
    assert run.state == "cancelling"
    assert run.due() == {"", "0.0"}


def test_cancel_between_decision_and_next_open(run):
    run.started(part())
    run.begin(0, "a")
    run.done(0, "a")

    assert run.cancel().code == "noted"
    assert run.open(part(), part(), n=1) in {"moved", "answered"}
    assert run.decision(1) == ("cancelled", "409|enough")
    assert run.open(part(), n=2) == "opened"
    assert run.due() == {"2.0"}


def test_cancel_reply_lost(run):
    run.started(part())
    run.begin(0, "a")
    first = run.cancel("c")
    before = run.everything()

    again = run.cancel("c")

    assert (first.code, stops(first)) == (again.code, stops(again)) == ("decided", ["a"])
    assert run.everything() == before


def test_cancel_of_nothing_open_reply_lost(run):
    run.submit()
    assert [run.cancel("c").code, run.cancel("c").code] == ["noted", "noted"]
    assert run.field("cancels") == "1"


def test_cancel_vs_complete(run):
    run.submit()
    run.complete(seen="")
    before = run.everything()

    assert run.cancel().code == "late"
    assert run.everything() == before


def test_complete_after_a_cancel_wins(run):
    """A workflow that awaits nothing more is not held up."""
    run.submit()
    run.cancel()

    assert run.complete(seen="") == "completed"


def test_cancel_of_an_unknown_run(run):
    with pytest.raises(RunNotFound, match="no run has the id 'r'"):
        run.cancel()
    assert run.everything() == {}


def test_cancel_leaves_an_undo_alone(run):
    run.submit()
    run.open(part(), undo=True, state="compensating")

    assert run.cancel().code == "noted"
    assert run.begin(0, "a") == "granted"
    assert run.done(0, "a") == "decided"
    assert run.decision() == ("all", "")


def test_cancel_still_compensates(run):
    run.started(part())
    run.cancel()

    assert run.settle(1) in {"moved", "answered"}
    assert run.open(part(), n=2, undo=True, state="compensating") == "opened"
    assert run.state == "compensating"


def test_a_second_cancel_answers_all_but_undos(run):
    run.started(part())
    run.cancel()
    run.open(part(), n=1)

    assert run.cancel().code == "decided"
    for n in (2, 3):
        assert run.open(part(), n=n) in {"moved", "answered"}
        assert run.decision(n)[0] == "cancelled"
    assert run.open(part(), n=4, undo=True) == "opened"


def test_cancel_of_a_delayed_or_sleeping_join_leaves_no_timer(run):
    run.started(sleep(), part(after_ms=60_000), timeout_ms=60_000)

    run.cancel()

    assert run.timers() == set()


# --- what comes late -------------------------------------------------------------------


def test_loser_succeeds_late(run):
    """Its undo is owed in the same transition that learns of the success."""
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")

    late = run.finish("done", 1, "b", outcome="v42")

    assert late.code == "late"
    assert refs(late) == [("1u", 1)]
    assert late.publish[0].undoes == "v42"
    assert run.late() == {"0.1": "v42"}
    assert run.due() == {"", "0.1u"}
    assert run.loose() == 1
    assert run.begin("1u", "u") == "granted"
    assert run.done("1u", "u") == "recorded"
    assert (run.loose(), run.joined(), run.late()["0.1u"]) == (0, False, "v1")


@pytest.mark.parametrize(("outcome", "undone"), [("done", True), ("failed", False), ("died", True)])
def test_a_late_loser_is_undone_if_it_may_have_succeeded(run, outcome, undone):
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")

    ending = run.release(1, "b") if outcome == "died" else run.finish(outcome, 1, "b")

    assert refs(ending) == ([("1u", 1)] if undone else [])
    assert run.loose() == (1 if undone else 0)


def test_a_loser_without_an_undo_only_leaves_its_outcome(run):
    run.started(part(), part(), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")

    assert refs(run.finish("done", 1, "b", outcome="v2")) == []
    assert run.late() == {"0.1": "v2"}
    assert not run.joined()


@pytest.mark.parametrize("how", ["an attempt failed", "an attempt timed out", "a process died"])
def test_a_part_that_began_before_it_was_stopped_is_not_forgotten(run, how):
    """It waits for its next attempt when its join is decided; its first one may have had an effect."""
    run.started(part(), part(undo=True), policy="all")
    run.begin(1, "b", timeout_ms=60_000, retry_in_ms=60_000)
    match how:
        case "an attempt failed":
            run.retry(1, "b")
        case "an attempt timed out":
            run.fire("attempt", 1)
            run.retry(1, "b")
        case _:
            run.release(1, "b")
    run.begin(0, "a")
    run.fail(0, "a")

    kinds = {"an attempt failed": "e", "an attempt timed out": "t", "a process died": "u"}
    assert run.late()["0.1"][0] == kinds[how]
    if how != "an attempt failed":
        assert "0.1u" in run.due()
        assert run.loose() == 1


def test_a_part_that_never_began_is_forgotten(run):
    run.started(part(), part(undo=True), part(after_ms=60_000, undo=True), policy="all")
    run.begin(0, "a")
    run.fail(0, "a")

    assert run.late() == {}
    assert run.loose() == 0
    assert not run.joined()


def test_sibling_succeeds_during_settle(run):
    """A settle waits for what still runs, and takes its outcome along."""
    run.started(part(), part(), part())
    for p, token in enumerate("abc"):
        run.begin(p, token)
    run.fail(0, "a")
    assert run.settle(1) == "opened"
    assert run.done(1, "b", outcome="v7") == "late"

    assert run.done(2, "c", outcome="v8") == "decided"

    late = json.loads(run.redis.hget(run.keys.journal("r"), "1.late"))
    assert dict(zip(late[::2], late[1::2], strict=True)) == {"0.1": "v7", "0.2": "v8"}
    assert run.due() == {""}


def test_a_settle_with_nothing_loose_is_answered_at_once(run):
    run.started(part())
    run.begin(0, "a")
    run.fail(0, "a")

    assert run.settle(1) in {"moved", "answered"}
    assert run.decision(1) == ("all", "")


def test_a_settle_waits_for_the_undo_of_a_late_loser(run):
    run.started(part(), part(undo=True))
    run.begin(0, "a")
    run.begin(1, "b")
    run.fail(0, "a")
    run.settle(1)
    assert run.done(1, "b") == "late"
    run.begin("1u", "u")

    assert run.done("1u", "u") == "decided"


def test_a_settle_waits_until_a_silent_claim_is_dead(run):
    run.started(part(), part())
    run.begin(0, "a")
    run.begin(1, "b")
    run.fail(0, "a")
    run.settle(1)
    run.tick(5)
    assert run.store.repair("r", "0", "1") == DeadClaim(run.ref(1, attempt=0))

    assert run.release(1).code == "decided"


def test_an_undo_that_takes_too_long_gives_up_and_decides_nothing_else(run):
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")
    before = run.decision()
    run.done(1, "b")
    run.begin("1u", "u", timeout_ms=60_000, retry_in_ms=-1)

    run.fire("attempt", "1u")

    assert run.decision() == before
    assert run.outcome("1u") is None
    assert run.late()["0.1u"][0] != "v"
    assert (run.loose(), run.joined()) == (0, False)
    assert "saga.undo_failed" in run.events()


def test_an_undo_of_a_late_loser_is_tried_again_when_it_fails(run):
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")
    run.done(1, "b")
    run.begin("1u", "u")

    assert run.retry("1u", "u") == "retrying"
    fired = run.fire("retry", "1u")
    assert refs(fired) == [("1u", 2)]
    assert fired.publish[0].undoes == "v1"


# --- the end ---------------------------------------------------------------------------


def test_a_run_ends_once(run):
    run.submit()
    assert run.complete(seen="", result="1") == "completed"
    before = run.everything()

    assert run.complete(seen="", result="1") == "completed"
    assert run.complete(seen="", token="other", state="failed") == "gone"
    assert run.everything() == before


@pytest.mark.parametrize("why", ["an open join", "a journal that moved on"])
def test_a_run_does_not_end_under_a_stale_turn(run, why):
    run.started(part())
    if why != "an open join":
        run.begin(0, "a")
        run.done(0, "a")
    before = run.everything()

    assert run.complete(seen="") == "moved"
    assert run.everything() == before


def test_every_key_has_an_end_after_completion(run):
    run.started(part(), part(undo=True), part(), policy="first")
    for p, token in enumerate("abc"):
        run.begin(p, token)
    run.done(0, "a")
    assert run.complete(seen="n0") == "completed"

    assert keys_without_end(run.redis) == []
    run.done(1, "b")  # a late loser with its undo
    assert keys_without_end(run.redis) == []
    run.begin("1u", "u")
    run.retry("1u", "u")
    run.fire("retry", "1u")
    run.begin("1u", "v", attempt=2)
    assert keys_without_end(run.redis) == []
    assert run.done("1u", "v", attempt=2) == "recorded"
    run.release(2, "c")
    assert keys_without_end(run.redis) == []
    assert (run.joined(), run.loose(), run.due(), run.timers()) == (False, 0, set(), set())


def test_a_failed_run_of_one_step_leaves_no_key_without_end(run):
    run.started(part(within_ms=60_000), timeout_ms=60_000)
    run.begin(0, "a", timeout_ms=60_000)
    run.fail(0, "a")
    run.complete(seen="n0", state="failed", error="{}")

    assert keys_without_end(run.redis) == []
    assert (run.due(), run.timers(), run.joined()) == (set(), set(), False)


@pytest.mark.parametrize("act", [lambda r: r.done(0, "z"), lambda r: r.begin(0, "z"), lambda r: r.release(0).code])
def test_stray_message_after_retention(run, act):
    run.started(part())
    run.begin(0, "a")
    shared = {run.keys.due(run.shard), run.keys.timers(run.shard)}
    for key in list(run.redis.scan_iter("*")):
        if key not in shared:
            run.redis.delete(key)

    assert act(run) in {"gone", "none"}
    assert set(run.redis.scan_iter("*")) <= shared
    run.tick(9)
    assert run.store.repair("r", "0", "0") is None
    assert run.due() == set()


def test_run_id_reused_after_retention(run):
    run.submit()
    run.complete(seen="", state="failed")
    run.redis.delete(run.keys.run("r"), run.keys.events("r"))
    run.submit(digest="other")

    reader = Reader(run.redis, run.keys)
    assert [status.state for status in reader.page().runs] == [State.PENDING]
    assert reader.page(state="failed").runs == ()


# --- scripts ---------------------------------------------------------------------------


def test_failover_noscript(run):
    run.submit()
    for act, code in [
        (lambda: run.open(part(), part()), "opened"),
        (lambda: run.begin(0, "a"), "granted"),
        (lambda: run.done(0, "a"), "recorded"),
        (lambda: run.begin(1, "b"), "granted"),
        (lambda: run.done(1, "b"), "decided"),
        (lambda: run.complete(seen="n0"), "completed"),
    ]:
        run.redis.script_flush()
        assert act() == code


def _late(run):
    run.begin(1, "b")
    run.done(0, "a")


def _dead(run):
    run.begin(1, "b")


@pytest.mark.parametrize(
    ("before", "act", "field"),
    [
        (_late, lambda run: run.done(1, "b"), "s1"),
        (_late, lambda run: run.release(1, "b"), "s1"),
        (_dead, lambda run: run.release(1, "b"), "s1"),
    ],
    ids=["late success", "late release", "release"],
)
def test_an_error_in_a_script_leaves_nothing_half_written(run, before, act, field):
    run.started(part(), part(undo=True), part(), policy="first")
    run.begin(0, "a")
    before(run)
    run.redis.hset(run.keys.join("r", 0), field, "not JSON")
    was = run.everything()

    with pytest.raises(ResponseError):
        act(run)

    assert run.everything() == was


@pytest.mark.parametrize(
    ("act", "codes"),
    [
        (lambda run: run.done(0, "a"), ("decided", "decided")),
        (lambda run: run.fail(0, "a"), ("recorded", "recorded")),
        (lambda run: run.retry(0, "a"), ("retrying", "retrying")),
        (lambda run: run.begin(1, "b", timeout_ms=5000), ("granted", "granted")),
        (lambda run: run.cancel("c").code, ("decided", "decided")),
        (lambda run: run.release(0, "a", call="x").code, ("start", "none")),
        (lambda run: run.open(part(), part(), policy="first", nonce="z"), ("exists", "exists")),
    ],
    ids=["done", "failed", "retry", "begin", "cancel", "release", "open"],
)
def test_oom_inside_a_script_is_all_or_nothing(run, act, codes):
    """Redis may refuse to write at any command: then none before it may have written."""
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    was = run.everything()
    run.redis.config_set("maxmemory", 1)
    try:
        answer = act(run)
    except OutOfMemoryError:
        answer = None
    finally:
        run.redis.config_set("maxmemory", 0)

    if answer is None:
        assert run.everything() == was
        assert act(run) == codes[0]
    else:
        assert (answer, act(run)) in {codes, (codes[0], codes[0])}


# --- the sweep -------------------------------------------------------------------------


def test_killed_between_open_join_and_each_publish(run):
    run.started(part(), part())
    run.tick(4)

    assert set(run.store.sweep(run.shard, "me")) == {"r/0.0", "r/0.1"}
    for p in ("0", "1"):
        owed = run.store.repair("r", "0", p)
        assert isinstance(owed, OwedPart)
        assert owed.part.ref == run.ref(p)
        assert owed.queue == "q"


def test_publish_raises_no_death(run):
    """A turn that was owed and never sent is found."""
    run.submit()
    run.tick(4)

    assert run.store.sweep(run.shard, "me") == ["r"]
    owed = run.store.repair("r")
    assert isinstance(owed, OwedTurn)
    assert owed.workflow == "w"


def test_two_sweepers_one_shard(run):
    assert run.store.sweep(run.shard, "me") == []
    assert run.store.sweep(run.shard, "you") is None
    assert run.store.sweep(run.shard, "me") == []


def test_a_tick_is_raised_at_most_once_a_second(run):
    for _ in range(5):
        run.store.sweep(run.shard, "me")

    assert run.redis.get(run.keys.tick(run.shard)) == "1"


def test_what_is_due_is_looked_at_again_after_twice_the_wait(run):
    run.submit()
    looks = []
    for tick in range(1, 40):
        run.tick(1)
        if run.store.repair("r") is not None:
            looks.append(tick)

    gaps = [later - sooner for sooner, later in itertools.pairwise(looks)]
    assert len(gaps) >= 2
    assert all(later == 2 * sooner for sooner, later in itertools.pairwise(gaps))


@pytest.mark.parametrize(("others", "looks"), [(0, range(12, 25)), (200, range(4, 8))])
def test_where_queues_can_be_asked_a_few_are_looked_at_often_and_a_backlog_rarely(run, others, looks):
    run.submit()
    run.redis.zadd(run.keys.due(run.shard), {f"other-{n}": 1000 for n in range(others + 1)})

    seen = 0
    for _ in range(40):
        run.tick(1)
        seen += run.store.repair("r", asks_queues=True) is not None

    assert seen in looks


def test_the_waits_of_a_run_begin_anew_when_it_moves_on(run):
    run.submit()
    for _ in range(5):
        run.tick(70)
        assert run.store.repair("r") is not None
    run.open(part())
    run.begin(0, "a")
    run.done(0, "a")
    run.tick(3)
    assert run.store.repair("r") is not None
    run.tick(4)

    assert run.store.repair("r") is not None


def test_nothing_is_due_of_a_run_that_has_ended(run):
    run.submit()
    run.complete(seen="")
    run.tick(9)

    assert run.store.sweep(run.shard, "me") == []
    assert run.store.repair("r") is None


# --- listing ---------------------------------------------------------------------------


def submit_many(client, number: int, *, same_ms: bool, **settings) -> list[str]:
    ids = [f"run-{at:03}" for at in range(number)]
    for at, run_id in enumerate(ids):
        run = Runs(client, run_id=run_id, **settings)
        run.submit()
        ms = 1_790_000_000_000 + (0 if same_ms else at // 3)
        client.hset(run.keys.run(run_id), mapping={"submitted_ms": ms})
        client.zadd(run.keys.state(run.shard, "pending"), {run_id: ms})
        if at % 3 == 1:
            run.open(part())
        if at % 3 == 2:
            run.complete(seen="")
    return ids


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("same_ms", [True, False])
@pytest.mark.parametrize("limit", [1, 7, 50])
def test_paging_gives_every_run_once(redis_client, shards, same_ms, limit):
    ids = submit_many(redis_client, 40, same_ms=same_ms, shards=shards)
    reader = Reader(redis_client, Runs(redis_client, shards=shards).keys)

    found, cursor, pages = [], None, 0
    while pages < 100:
        page = reader.page(limit=limit, cursor=cursor)
        found += [status.run_id for status in page.runs]
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break

    assert sorted(found) == ids
    assert found == sorted(ids, reverse=True)


@pytest.mark.parametrize("state", ["pending", "running", "completed"])
def test_paging_by_state_gives_the_runs_in_it(redis_client, state):
    ids = submit_many(redis_client, 30, same_ms=True, shards=4)
    reader = Reader(redis_client, Runs(redis_client).keys)
    found, cursor = [], None
    while True:
        page = reader.page(state=state, limit=4, cursor=cursor, workflow="w")
        found += [status.run_id for status in page.runs]
        if (cursor := page.cursor) is None:
            break

    assert sorted(found) == ids[["pending", "running", "completed"].index(state) :: 3]
    assert reader.page(workflow="other").runs == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"limit": 0}, "limit must be from 1 to 1000"), ({"limit": 1001}, "limit"), ({"state": "done"}, "no state"),
     ({"cursor": "nonsense"}, "cursor 'nonsense' is not one"), ({"cursor": "ä"}, "cursor")],
)  # fmt: skip
def test_a_wrong_listing_is_refused(redis_client, options, message):
    with pytest.raises(ConfigError, match=message):
        Reader(redis_client, Runs(redis_client).keys).page(**options)


def test_a_run_that_changes_its_state_meanwhile_is_listed_once(redis_client):
    run = Runs(redis_client)
    run.submit()
    ms = float(run.field("submitted_ms"))
    redis_client.zadd(run.keys.state(run.shard, "running"), {"r": ms})  # as between the looks at two states

    assert [status.run_id for status in Reader(redis_client, run.keys).page().runs] == ["r"]


@pytest.mark.parametrize("reason", ["enough", "{not json", '{"a": 1}', '"x"', "", "ä\n"])
def test_history_shows_a_cancel_whatever_its_reason(redis_client, reason):
    run = Runs(redis_client)
    run.submit()
    run.cancel(reason=reason)

    kinds = [event.kind for event in Reader(redis_client, run.keys).history("r")]

    assert kinds == ["run.submitted", "run.cancelling"]


def test_the_status_of_a_failed_step_has_its_error(run):
    run.started(part())
    run.begin(0, "a")
    run.finish("failed", 0, "a", outcome=ERROR)

    (step,) = Reader(run.redis, run.keys).status("r").steps

    assert (step.state, step.attempt, step.queue, step.name) == ("failed", 1, "q", "s")
    assert step.error is not None
    assert step.error.message == "no"
