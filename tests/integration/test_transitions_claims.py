"""begin, finish, release, vouch: who runs a part, and which outcome counts. Real Redis, no worker."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

import pytest

from runs import ERROR, UNKNOWN, Runs, part, refs, stops


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


def test_one_claim_at_a_time(run):
    run.started(part())

    assert run.begin(0, "a") == "granted"
    assert run.begin(0, "b") == "held"
    assert run.step_state() == "running"


def test_begin_reply_lost(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=5000)
    before = run.everything()

    again = run.store.begin(run.ref(), token="a", where="w1", timeout_ms=5000)

    assert again.granted
    assert again.deadline_ms > again.now_ms
    assert run.everything() == before


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda run: run.begin(0, "b", nonce="old"), "gone"),
        (lambda run: run.begin(7, "b"), "gone"),
        (lambda run: run.begin(0, "b", n=1), "gone"),
        (lambda run: run.begin(0, "b", attempt=2), "stale"),
        (lambda run: Runs(run.redis, run_id="nobody").begin(0, "b"), "gone"),
    ],
    ids=["nonce", "part", "await", "attempt", "run"],
)
def test_begin_refuses_what_is_not_there_and_writes_nothing(run, ask, code):
    run.started(part())
    before = run.everything()

    assert ask(run) == code
    assert run.everything() == before


def test_message_of_a_former_life_of_the_run(run):
    run.started(part())
    run.redis.flushall()
    run.submit(digest="other")
    assert run.open(part(), nonce="new life") == "opened"

    assert run.begin(0, "a") == "gone"
    assert run.done(0, "a") == "gone"
    assert run.outcome() is None


def test_same_id_after_revoke(run):
    """A released part is published again, and no message of it has an id that a worker may have seen revoked."""
    run.started(part(), part())
    run.begin(0, "a")
    run.retry(0, "a")
    retried = run.fire("retry", 0)

    assert refs(retried) == [("0", 2)]
    assert retried.publish[0].ref.message_id != run.ref(0, attempt=1).message_id


def test_first_outcome_wins(run):
    run.started(part(), policy="settle")
    run.begin(0, "a")
    assert run.done(0, "a", outcome="v1") == "decided"

    assert run.done(0, "b", outcome="v2") in {"recorded", "gone"}
    assert run.outcome() == "v1"


def test_a_success_counts_from_whoever_it_comes(run):
    run.started(part())
    run.begin(0, "a")

    assert run.done(0, "z") == "decided"
    assert run.outcome() == "v1"


@pytest.mark.parametrize("kind", ["failed", "retry"])
def test_only_the_claimant_may_fail(run, kind):
    run.started(part())
    run.begin(0, "a")
    before = run.everything()

    assert run.finish(kind, 0, "z").code == "superseded"
    assert run.everything() == before


def test_finish_reply_lost_counts_one_attempt(run):
    run.started(part())
    run.begin(0, "a")

    assert [run.retry(0, "a"), run.retry(0, "a"), run.retry(0, "a")] == ["retrying"] * 3
    assert run.begin(0, "b", attempt=2) == "early"
    assert run.events().count("step.retrying") == 1


@pytest.mark.parametrize("kind", ["done", "failed"])
def test_a_finish_that_decides_answers_the_same_again(run, kind):
    run.started(part(), part())
    run.begin(0, "a")
    if kind == "done":
        run.begin(1, "b")
        run.done(1, "b")
    first = run.finish(kind, 0, "a")
    before = run.everything()

    again = run.finish(kind, 0, "a")

    assert (first.code, again.code) == ("decided", "decided")
    assert stops(first) == stops(again)
    assert run.everything() == before


@pytest.mark.parametrize("kind", ["done", "failed"])
def test_a_finish_that_only_counts_answers_the_same_again(run, kind):
    run.started(part(), part(), policy="settle")
    run.begin(0, "a")
    first = run.finish(kind, 0, "a").code
    before = run.everything()

    assert (first, run.finish(kind, 0, "a").code) == ("recorded", "recorded")
    assert run.everything() == before


def test_a_late_finish_answers_the_same_again(run):
    run.started(part(), part(), part(), policy="first")
    for p, token in enumerate("abc"):
        run.begin(p, token)
    run.done(0, "a")
    first = run.finish("done", 1, "b")
    before = run.everything()

    again = run.finish("done", 1, "b")

    assert first.code == "late"
    assert again.code in {"late", "recorded"}
    assert run.everything() == before


def test_redelivery_before_due(run):
    """A message that comes again while its retry waits is refused; it runs when it is due."""
    run.started(part())
    run.begin(0, "a")
    run.retry(0, "a")

    assert run.begin(0, "b", attempt=1) == "stale"
    assert run.begin(0, "b", attempt=2) == "early"
    assert refs(run.fire("retry", 0)) == [("0", 2)]
    assert run.begin(0, "b", attempt=2) == "granted"


def test_a_claim_that_is_vouched_for_lives(run):
    run.started(part())
    run.begin(0, "a")
    for _ in range(10):
        run.tick(3)
        assert run.store.vouch(run.id, [(0, "0", "a")]) == 1

    assert run.begin(0, "b") == "held"
    assert run.release(0).code == "none"


def test_a_claim_dies_after_four_ticks_without_its_worker(run):
    run.started(part())
    run.begin(0, "a")
    run.tick(4)
    assert run.release(0).code == "none"
    run.tick(1)

    released = run.release(0)

    assert released.code == "start"
    assert refs(released) == [("0", 1)]
    assert run.store.vouch(run.id, [(0, "0", "a")]) == 0
    assert run.begin(0, "b") == "granted"


def test_refused_message_then_claimant_dies(run):
    run.started(part())
    run.begin(0, "a")
    assert run.begin(0, "b") == "held"  # and its message is gone
    run.tick(5)

    owed = run.store.repair(run.id, "0", "0")

    assert owed is not None
    assert refs(run.release(0)) == [("0", 1)]


def test_parent_workerlost_after_new_claim(run):
    """A parent releases the claim it names, and no other."""
    run.started(part())
    run.begin(0, "a")
    run.tick(5)
    run.release(0)
    run.begin(0, "b")
    before = run.everything()

    assert run.release(0, "a").code == "none"
    assert run.everything() == before


def test_a_part_has_so_many_lives_and_then_its_outcome_is_unknown(redis_client):
    run = Runs(redis_client, max_lives=3).started(part())
    codes = []
    for life in range(3):
        run.begin(0, f"t{life}")
        codes.append(run.release(0, f"t{life}").code)

    assert codes == ["start", "start", "decided"]
    assert run.outcome() == UNKNOWN


def test_lives_and_attempts_are_counted_apart(redis_client):
    run = Runs(redis_client, max_lives=2).started(part())
    run.begin(0, "a")
    run.release(0, "a")
    run.begin(0, "b")
    run.retry(0, "b")
    run.fire("retry", 0)

    assert run.begin(0, "c", attempt=2) == "granted"


def test_a_step_that_is_not_idempotent_has_one_life(run):
    run.started(part(once=True))
    run.begin(0, "a")

    assert run.release(0, "a").code == "decided"
    assert run.outcome() == UNKNOWN


def test_a_step_that_is_not_idempotent_is_not_begun_again_over_a_dead_claim(run):
    run.started(part(once=True))
    run.begin(0, "a")
    run.tick(5)

    assert run.begin(0, "b") == "held"
    assert run.release(0).code == "decided"


def test_the_undo_of_a_step_that_is_not_idempotent_has_all_its_lives(run):
    run.started(part(), part(once=True, undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")
    assert refs(run.finish("done", 1, "b")) == [("1u", 1)]
    run.begin("1u", "c")

    assert refs(run.release("1u", "c")) == [("1u", 1)]


def test_sigstop_beyond_lease_then_fails(run):
    run.started(part())
    run.begin(0, "a")
    run.tick(5)
    run.release(0)
    run.begin(0, "b")

    assert run.fail(0, "a") == "superseded"
    assert run.done(0, "b") == "decided"
    assert run.outcome() == "v1"


def test_sigstop_beyond_lease_then_succeeds(run):
    run.started(part())
    run.begin(0, "a")
    run.tick(5)
    run.release(0)
    run.begin(0, "b")

    late = run.finish("done", 0, "a")

    assert late.code == "decided"
    assert stops(late) == ["b"]
    assert run.loose() == 1
    assert run.fail(0, "b") in {"late", "superseded"}
    assert run.loose() == 0
    assert not run.joined()


def test_a_claim_that_outlived_its_part_is_found_when_its_worker_dies(run):
    """Else a rollback would wait for it for ever."""
    run.started(part(), part(), policy="settle")
    run.begin(0, "a")
    run.tick(5)
    run.release(0)
    run.begin(0, "b")
    run.done(0, "a")  # the first one came back and won; "b" still runs, and its worker dies now

    assert run.loose() == 1
    assert "0.0" in run.due()
    run.tick(5)
    run.release(0)
    assert run.loose() == 0


def test_a_done_step_is_shown_as_done_whatever_the_other_process_does(run):
    run.started(part(), part(), policy="settle")
    run.begin(0, "a")
    run.tick(5)
    run.release(0)
    run.begin(0, "b")
    run.done(0, "a")

    run.fail(0, "b")

    assert run.step_state(0) == "done"


def test_a_success_while_its_retry_waits_counts(run):
    """Its attempt had timed out, but it did what was asked for."""
    run.started(part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=60_000)
    run.fire("attempt", 0)
    assert run.begin(0, "b", attempt=2) == "early"

    assert run.done(0, "a") == "decided"
    assert run.outcome() == "v1"
    assert run.timers() == set()


def test_a_failure_after_its_attempt_timed_out_is_nothing_new(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=60_000)
    run.fire("attempt", 0)

    assert run.fail(0, "a") == "retrying"
    before = run.everything()
    assert run.fail(0, "a") == "retrying"
    assert run.retry(0, "a") == "retrying"
    assert run.everything() == before
    assert run.step_state(0) == "retrying"


def test_a_retry_does_not_begin_while_the_attempt_before_it_runs(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=1000)
    run.fire("attempt", 0)
    assert refs(run.fire("retry", 0)) == []
    assert run.begin(0, "b", attempt=2) == "held"
    assert run.store.vouch("r", [(0, "0", "a")]) == 1, "its worker says that it still runs"

    ended = run.finish("retry", 0, "a", retry_in_ms=60_000)

    assert (ended.code, refs(ended)) == ("retrying", [("0", 2)])
    assert run.begin(0, "b", attempt=2) == "granted"
    assert run.done(0, "b", attempt=2) == "decided"
    assert (run.due(), run.timers()) == ({""}, set())


def test_a_retry_waits_its_time_though_the_attempt_before_it_has_ended(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=1000)
    run.fire("attempt", 0)

    assert refs(run.finish("retry", 0, "a")) == []
    assert run.begin(0, "b", attempt=2) == "early"
    assert refs(run.fire("retry", 0)) == [("0", 2)]


def test_a_retry_begins_when_the_worker_of_the_attempt_before_it_is_gone(run):
    run.started(part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=1000)
    run.fire("attempt", 0)
    run.fire("retry", 0)
    assert run.release(0).code == "none", "it is vouched for"
    run.tick(10)

    assert run.store.repair("r", "0", "0") is not None
    assert refs(run.release(0)) == [("0", 2)]
    assert run.redis.hget(run.keys.join("r", 0), "l0") is None, "a time-out costs no life"


def test_an_attempt_whose_time_is_up_is_told(run):
    run.started(part(), part())
    run.begin(0, "a", timeout_ms=1000, retry_in_ms=60_000)
    run.begin(1, "b")
    run.fire("attempt", 0)

    assert run.store.stopped(run.ref(0))
    assert not run.store.stopped(run.ref(0, attempt=2))
    assert not run.store.stopped(run.ref(1))


def test_a_rollback_waits_for_an_attempt_whose_time_was_up(run):
    run.started(part(), part(undo=True))
    run.begin(0, "a")
    run.begin(1, "b", timeout_ms=1000, retry_in_ms=1000)
    run.fire("attempt", 1)
    run.fail(0, "a")

    assert run.settle(1) == "opened"
    assert refs(run.finish("done", 1, "b", outcome="v7")) == [("1u", 1)], "it succeeded after all, and is undone"
    assert run.late() == {"0.1": "v7"}


def test_what_a_timed_out_part_says_after_its_run_has_an_end_too(run):
    run.started(part(within_ms=1000), policy="settle")
    run.begin(0, "a")
    run.fire("within", 0)
    run.complete(seen="n0")

    assert run.done(0, "a") == "late"
    assert run.late() == {"0.0": "v1"}
    assert run.redis.pttl(run.keys.late("r")) > 0


@pytest.mark.parametrize("decided", [True, False])
def test_an_action_that_succeeds_after_its_time_was_up_is_undone_at_once(run, decided):
    """Nobody could use it, whether its join is decided or goes on with others."""
    run.started(part(within_ms=1000, undo=True), *([] if decided else [part()]), policy="settle")
    run.begin(0, "a")
    run.fire("within", 0)

    assert refs(run.finish("done", 0, "a", outcome="v7")) == [("0u", 1)]
    assert refs(run.finish("done", 0, "a", outcome="v7")) == [], "it is owed already, and the sweep sends it"
    assert (run.late(), run.loose()) == ({"0.0": "v7"}, 1)
    assert run.begin("0u", "u") == "granted"
    assert run.finish("done", "0u", "u", outcome="vnull").code == "recorded"
    assert run.finish("done", "0u", "u", outcome="vnull").code == ("gone" if decided else "recorded")
    assert run.begin("0u", "again") == ("gone" if decided else "ended")
    assert (run.late(), run.loose()) == ({"0.0": "v7", "0.0u": "vnull"}, 0)
    assert run.due() == ({""} if decided else {"0.1"})
    if not decided:
        run.begin(1, "b")
        assert run.done(1, "b") == "decided"
    assert not run.joined()


@pytest.mark.parametrize("decided", [True, False])
def test_an_action_whose_process_died_after_its_time_was_up_may_have_had_its_effect(run, decided):
    run.started(part(within_ms=1000, undo=True), *([] if decided else [part()]), policy="settle")
    run.begin(0, "a")
    run.fire("within", 0)

    assert refs(run.release(0, "a")) == [("0u", 1)]
    assert (run.late(), run.loose()) == ({"0.0": "u"}, 1)


def test_an_action_that_fails_after_its_time_was_up_is_not_undone(run):
    run.started(part(within_ms=1000, undo=True), policy="settle")
    run.begin(0, "a")
    run.fire("within", 0)

    assert refs(run.finish("failed", 0, "a")) == []
    assert (run.late(), run.loose()) == ({"0.0": ERROR}, 0)


@pytest.mark.parametrize(("how", "late"), [("an attempt failed", {}), ("a process died", {"0.0": "u"})])
def test_an_action_whose_time_was_up_between_two_attempts_is_undone_if_it_may_have_had_its_effect(run, how, late):
    run.started(part(within_ms=1000, undo=True), part(), policy="settle")
    run.begin(0, "a")
    if how == "an attempt failed":
        run.retry(0, "a")
    else:
        run.release(0, "a")
    run.fire("within", 0)

    assert run.late() == late
    assert ("0.0u" in run.due()) is bool(late)


def test_an_action_that_never_began_in_its_time_is_not_undone(run):
    run.started(part(within_ms=1000, undo=True), policy="settle")
    run.fire("within", 0)

    assert (run.late(), run.loose(), run.joined()) == ({}, 0, False)


def test_an_ended_part_is_not_begun_again(run):
    run.started(part(), part())
    run.begin(0, "a")
    run.done(0, "a")

    assert run.begin(0, "b") == "ended"


def test_a_part_of_a_decided_join_is_vetoed(run):
    run.started(part(), part(), part())
    run.begin(0, "a")
    run.begin(1, "b")

    decided = run.finish("failed", 0, "a")

    assert decided.code == "decided"
    assert stops(decided) == ["b"]
    assert run.begin(2, "c") == "decided"
    assert run.step_state(2) == "stopped"
    assert run.due() == {"", "0.1"}


def test_a_step_learns_that_it_is_stopped(run):
    run.started(part(), part())
    run.begin(0, "a")
    run.begin(1, "b")
    assert run.store.stopped(run.ref(1)) is False

    run.fail(0, "a")

    assert run.store.stopped(run.ref(1)) is True


def test_the_first_failure_decides_a_fail_fast_join(run):
    run.started(part(), part(), part(), part())
    run.begin(2, "c")

    assert run.fail(2, "c") == "decided"
    assert run.decision() == ("failed", "2")
    assert run.outcome(2) == ERROR


@pytest.mark.parametrize(
    ("policy", "need", "outcomes", "decision"),
    [
        ("all", 0, "ddd", (3, ("all", ""))),
        ("all", 0, "df", (2, ("failed", "1"))),
        ("settle", 0, "fff", (3, ("all", ""))),
        ("settle", 0, "dfd", (3, ("all", ""))),
        ("first", 0, "ffd", (3, ("won", "2"))),
        ("first", 0, "d", (1, ("won", "0"))),
        ("first", 0, "fff", (3, ("lost", ""))),
        ("quorum", 2, "dfd", (3, ("all", ""))),
        ("quorum", 2, "dd", (2, ("all", ""))),
        ("quorum", 2, "ff", (2, ("lost", ""))),
        ("quorum", 3, "ddf", (3, ("lost", ""))),
        ("quorum", 1, "ffd", (3, ("all", ""))),
    ],
)
def test_each_policy_decides_as_soon_as_it_can(run, policy, need, outcomes, decision):
    run.started(part(), part(), part(), policy=policy, need=need)
    codes = []
    for p, outcome in enumerate(outcomes):
        run.begin(p, f"t{p}")
        codes.append(run.done(p, f"t{p}") if outcome == "d" else run.fail(p, f"t{p}"))

    assert codes == ["recorded"] * (decision[0] - 1) + ["decided"]
    assert run.decision() == decision[1]
    assert run.field("seen") == "n0"
    assert run.field("open") == ""
    assert run.due() == {""}


def test_a_quorum_keeps_the_order_of_arrival(run):
    run.started(part(), part(), part(), policy="quorum", need=2)
    for p in (2, 0):
        run.begin(p, f"t{p}")
        run.done(p, f"t{p}")

    assert run.redis.hget(run.keys.journal("r"), "0:order") == "2,0"
