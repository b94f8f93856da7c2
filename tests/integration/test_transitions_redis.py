"""A Redis that was restarted is met with care: what was in its lost second is not run twice. No worker."""

# ruff: noqa: S106, S107, a token here is no password
from __future__ import annotations

from itertools import count

import pytest

from runs import Runs, part, refs, stops
from status.reading import Reader


class Restarted(Runs):
    """Runs on a Redis that can go back to an earlier moment, as after a restart that lost a second."""

    restarts = count()

    def remember(self) -> None:
        """What is on disk from now on, whatever is written."""
        keys = list(self.redis.scan_iter("*"))
        self.saved = [(key, max(0, self.redis.pttl(key)), self.raw.dump(key)) for key in keys]

    @property
    def raw(self):
        return type(self.redis).from_url(
            "redis://{host}:{port}/{db}".format(**self.redis.connection_pool.connection_kwargs)
        )

    def restart(self, *, meets: bool = True) -> None:
        """Back to what was remembered, and the first client meets the new server."""
        self.redis.flushall()
        self.redis.script_flush()
        for key, pttl_ms, dump in self.saved:
            self.raw.restore(key, pttl_ms, dump)
        if meets:
            self.meet(f"server{next(self.restarts)}")

    def meet(self, name: str) -> None:
        for shard in range(self.keys.shards):
            self.store.grace.meet(shard, name)

    def reassert(self, p: int | str = 0, token: str = "a", *, n: int = 0, attempt: int = 1, **more) -> str:
        ref = self.ref(p, n, attempt, more.pop("nonce", None))
        return self.store.grace.reassert(ref, token=token, where="w1", **more)

    def sweep(self, times: int = 1) -> None:
        """Let that many seconds of the sweep pass."""
        for _ in range(times):
            self.redis.delete(self.keys.raised(self.shard))
            self.store.sweep(self.shard, "sweeper")

    def in_grace(self) -> bool:
        return bool(self.redis.exists(self.keys.grace(self.shard)))


@pytest.fixture
def run(redis_client) -> Restarted:
    return Restarted(redis_client)


# --- the grace -----------------------------------------------------------------------


def test_a_new_server_begins_a_grace_and_a_known_one_does_not(run):
    run.submit()
    assert not run.in_grace()

    run.meet("another")
    assert run.in_grace()
    run.sweep(6)
    run.meet("another")

    assert not run.in_grace()


def test_the_first_server_of_all_begins_no_grace(redis_client):
    run = Restarted(redis_client)
    run.submit()
    run.redis.flushall()
    run.meet("first")

    assert not run.in_grace()


def test_nothing_is_granted_for_five_ticks(run):
    run.started(part())
    run.remember()
    run.restart()

    codes = []
    for _ in range(6):
        codes.append(run.begin(0, "a"))
        run.sweep()

    assert codes == ["grace"] * 5 + ["granted"]
    assert not run.in_grace()


def test_a_message_that_waits_out_the_grace_is_not_sent_again_meanwhile(run):
    run.started(part())
    run.remember()
    run.restart()
    for _ in range(5):
        run.begin(0, "a")
        run.sweep()
        assert run.store.repair(run.id, "0", "0") is None


def test_what_is_over_is_refused_in_a_grace_as_ever(run):
    run.started(part(), part())
    run.begin(0, "a")
    run.done(0, "a")
    run.begin(1, "b")
    run.remember()
    run.restart()

    assert run.begin(0, "c") == "ended"
    assert run.begin(1, "c") == "held"
    assert run.begin(1, "b") == "granted"
    assert run.begin(1, "c", nonce="old") == "gone"


def test_outcomes_are_taken_in_a_grace(run):
    run.started(part())
    run.begin(0, "a")
    run.remember()
    run.restart()

    assert run.done(0, "a") == "decided"


# --- claims that are lost --------------------------------------------------------------


def test_lost_begin(run):
    """The step runs, and Redis does not know: its worker says so, and nobody else begins it."""
    run.started(part())
    run.remember()
    assert run.begin(0, "a", timeout_ms=5000) == "granted"
    run.restart()

    assert run.store.vouch(run.id, [(0, "0", "a")]) == 0
    assert run.reassert(0, "a", timeout_ms=5000, retry_in_ms=1000) == "held"
    for _ in range(8):
        assert run.begin(0, "b") == "held"
        assert run.store.vouch(run.id, [(0, "0", "a")]) == 1
        run.sweep()

    assert not run.in_grace()
    assert run.step_state() == "running"
    assert run.timers() == {"attempt 0"}
    assert run.done(0, "a") == "decided"
    assert run.timers() == set()


def test_lost_begin_of_a_worker_that_died_too(run):
    run.started(part())
    run.remember()
    run.begin(0, "a")
    run.restart()
    run.sweep(5)

    assert run.begin(0, "b") == "granted"


def test_lost_begin_of_a_retry(run):
    """Its first attempt's failure is lost as well: attempt 2 runs, and the claim of attempt 1 is nobody's."""
    run.started(part())
    run.begin(0, "a", timeout_ms=9000)
    run.remember()
    run.retry(0, "a")
    run.fire("retry", 0)
    assert run.begin(0, "b", attempt=2) == "granted"
    run.restart()

    assert run.reassert(0, "b", attempt=2) == "held"
    assert run.begin(0, "c", attempt=1) == "stale"
    assert run.begin(0, "c", attempt=2) == "held"
    assert run.timers() == set()
    assert run.retry(0, "b", attempt=2) == "retrying"


def test_lost_begin_of_a_retry_whose_timer_waits_again(run):
    run.started(part())
    run.begin(0, "a")
    run.retry(0, "a")
    run.remember()
    run.fire("retry", 0)
    run.begin(0, "b", attempt=2)
    run.restart()
    assert run.timers() == {"retry 0"}

    assert run.reassert(0, "b", attempt=2) == "held"
    assert run.timers() == set()
    assert run.done(0, "b", attempt=2) == "decided"


def test_lost_release_leaves_the_part_to_one_of_two(run):
    """The dead claim is back, and its successor runs: it is noted until the dead one has gone, and held then."""
    run.started(part())
    run.begin(0, "dead")
    run.remember()
    run.tick(5)
    run.release(0)
    assert run.begin(0, "b") == "granted"
    run.restart()

    for _ in range(5):
        assert run.reassert(0, "b") == "noted"
        run.sweep()
    run.release(0)
    assert run.begin(0, "c") == "held"
    assert run.reassert(0, "b") == "held"
    assert run.done(0, "b") == "decided"


def test_a_claim_is_put_back_after_a_restart_only(run):
    """Else a worker's heartbeat would put back what its parent process has just released."""
    run.started(part())
    run.begin(0, "a")
    run.release(0, "a")
    before = run.everything()

    assert run.reassert(0, "a") == "over"
    assert run.everything() == before


@pytest.mark.parametrize("end", ["done", "failed", "retry"])
def test_what_has_ended_is_not_put_back(run, end):
    run.started(part(), part(), policy="settle")
    run.begin(0, "a")
    run.remember()
    run.restart()
    run.finish(end, 0, "a", **({"retry_in_ms": 1000} if end == "retry" else {}))
    before = run.everything()

    assert run.reassert(0, "a") == "over"
    assert run.everything() == before


def test_a_rollback_waits_for_a_claim_that_comes_back_after_the_decision(run):
    run.started(part(), part(undo=True), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.remember()
    run.begin(2, "c")
    run.restart()
    decided = run.finish("done", 0, "a")
    assert stops(decided) == ["b"]

    assert run.reassert(2, "c") == "held"
    assert run.loose() == 2
    assert refs(run.finish("done", 2, "c")) == [("2u", 1)]


# --- joins that are lost ---------------------------------------------------------------


def test_lost_open_join_turn_confirms_late(run):
    """The join is lost while its step runs; the next turn opens it anew and must not begin the same step beside it."""
    run.submit()
    run.remember()
    run.open(part(), nonce="lost")
    assert run.begin(0, "a", nonce="lost") == "granted"
    run.restart()

    assert run.reassert(0, "a", nonce="lost") == "noted"
    assert run.open(part()) == "opened"
    for _ in range(8):
        assert run.begin(0, "b") in {"grace", "held"}
        assert run.reassert(0, "a", nonce="lost") == "noted"
        run.sweep()
    assert run.begin(0, "b") == "held"

    # The turn that had opened it confirms late: with its own nonce it gets the parts of the join that is there.
    late = run.opening(part(), nonce="lost")
    assert (late.code, late.nonce, dict(late.waiting)) == ("exists", "n0", {"0": 1})

    assert run.done(0, "a", nonce="lost") == "gone"
    run.sweep(5)
    assert run.begin(0, "b") == "granted"
    run.sweep()
    assert not run.in_grace()
    assert run.done(0, "b") == "decided"


def test_lost_open_join_reply_lost_too(run):
    run.submit()
    run.remember()
    run.open(part())
    run.restart()

    assert run.open(part()) == "opened"
    assert run.open(part()) == "opened"


def test_a_part_refused_for_a_note_is_looked_at_again_soon(run):
    run.submit()
    run.remember()
    run.open(part(), nonce="lost")
    run.begin(0, "a", nonce="lost")
    run.restart()
    run.open(part())
    run.sweep(4)
    run.reassert(0, "a", nonce="lost")
    run.sweep(2)
    assert run.begin(0, "b") == "held"
    run.sweep(6)

    assert run.store.repair(run.id, "0", "0") is not None


def test_lost_finish(run):
    """Its claim is back, its worker has gone on: it is given to another, and has one outcome."""
    run.started(part())
    run.begin(0, "a")
    run.remember()
    assert run.done(0, "a", outcome="v1") == "decided"
    run.restart()

    assert run.begin(0, "b") == "held"
    run.sweep(6)
    assert refs(run.release(0)) == [("0", 1)]
    assert run.begin(0, "b") == "granted"
    assert run.done(0, "b", outcome="v2") == "decided"
    assert run.done(0, "a", outcome="v1") in {"recorded", "gone"}
    assert run.outcome() == "v2"


def test_lost_winner_old_message_other_arguments(run):
    """The winner is lost and another one wins; the next step's message with the first winner's value is void."""
    run.started(part(), part(), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.remember()
    run.done(0, "a")
    run.open(part(), n=1, seen="n0", nonce="of-winner-0")
    run.restart()
    assert run.done(1, "b") == "decided"
    run.open(part(), n=1, seen="n0", nonce="of-winner-1")
    run.sweep(6)

    assert run.begin(0, "c", n=1, nonce="of-winner-0") == "gone"
    assert run.begin(0, "c", n=1, nonce="of-winner-1") == "granted"


def test_lost_winner_whose_next_step_runs(run):
    """As above, but the step runs already: the one with the right arguments begins when it has ended."""
    run.started(part(), part(), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.remember()
    run.done(0, "a")
    run.open(part(), n=1, seen="n0", nonce="of-winner-0")
    run.begin(0, "c", n=1, nonce="of-winner-0")
    run.restart()
    run.reassert(0, "c", n=1, nonce="of-winner-0")
    run.done(1, "b")
    run.open(part(), n=1, seen="n0", nonce="of-winner-1")
    run.sweep(4)
    run.reassert(0, "c", n=1, nonce="of-winner-0")
    run.sweep(2)

    assert run.begin(0, "d", n=1, nonce="of-winner-1") == "held"
    run.sweep(4)
    assert run.begin(0, "d", n=1, nonce="of-winner-1") == "granted"


def test_down_longer_than_lease(run):
    """However long it was down: ticks stood still, so claims are as good as before."""
    run.started(part())
    run.begin(0, "a")
    run.remember()
    run.restart()
    run.sweep(4)
    assert run.release(0).code == "none"
    assert run.store.vouch(run.id, [(0, "0", "a")]) == 1
    run.sweep(4)

    assert run.begin(0, "b") == "held"
    assert run.release(0).code == "none"


def test_a_restart_within_a_grace_begins_it_anew(run):
    run.started(part())
    run.remember()
    run.restart()
    run.sweep(3)
    run.remember()
    run.restart()
    run.sweep(4)

    assert run.begin(0, "a") == "grace"
    run.sweep(1)
    assert run.begin(0, "a") == "granted"


def test_the_undo_of_a_late_success_is_put_back_too(run):
    run.started(part(), part(undo=True), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")
    run.done(1, "b")
    run.remember()
    assert run.begin("1u", "c") == "granted"
    run.restart()

    assert run.reassert("1u", "c") == "held"
    assert run.loose() == 1
    assert run.begin("1u", "d") == "held"
    assert run.done("1u", "c", outcome="vnull") == "recorded"
    assert run.loose() == 0


# --- clocks, keys and watchers -----------------------------------------------------------


def _shift_clock(run: Restarted, by_ms: int) -> None:
    """What is in Redis as it is after its server's clock was put on (or back) by so much."""
    for key in (run.keys.raised(run.shard), run.keys.lease(run.shard)):
        left_ms = run.redis.pttl(key)
        if left_ms > 0:
            run.redis.pexpire(key, max(0, left_ms - by_ms))
    for member, at_ms in run.redis.zrange(run.keys.timers(run.shard), 0, -1, withscores=True):
        run.redis.zadd(run.keys.timers(run.shard), {member: at_ms - by_ms})


def test_time_plus_1h(run):
    _claims_go_by_ticks_whatever_the_clock_says(run, 3_600_000)


def test_time_minus_1h(run):
    _claims_go_by_ticks_whatever_the_clock_says(run, -3_600_000)


def _claims_go_by_ticks_whatever_the_clock_says(run, by_ms):
    run.started(part())
    run.begin(0, "a")
    run.store.sweep(run.shard, "sweeper")
    before = int(run.redis.get(run.keys.tick(run.shard)))
    _shift_clock(run, by_ms)

    run.store.sweep(run.shard, "sweeper")
    assert int(run.redis.get(run.keys.tick(run.shard))) == before + 1
    run.store.sweep(run.shard, "sweeper")
    assert int(run.redis.get(run.keys.tick(run.shard))) == before + 1
    assert run.begin(0, "b") == "held"
    run.sweep(5)
    assert run.begin(0, "b") == "granted"


def test_a_lease_from_before_the_clock_was_put_back_keeps_nobody_out(run):
    run.store.sweep(run.shard, "dead")
    assert run.store.sweep(run.shard, "next") is None
    _shift_clock(run, -3_600_000)

    assert run.store.sweep(run.shard, "next") is not None


def test_watcher_across_rollback(run):
    """It sees what comes after the restart, and the run's end."""
    run.started(part())
    run.remember()
    run.begin(0, "a")
    reader = Reader(run.redis, run.keys)
    watched = reader.watch(run.id, timeout_s=20)
    seen = [next(watched).kind for _ in range(3)]
    run.restart()
    run.sweep(6)
    run.begin(0, "b")
    run.done(0, "b")
    run.complete(seen="n0")

    rest = [event.kind for event in watched]

    assert seen == ["run.submitted", "join.opened", "step.started"]
    assert rest == ["step.started", "step.done", "join.decided", "run.completed"]


@pytest.mark.parametrize("left", ["run", "journal", "steps", "events", "late"])
def test_partly_expired_run(run, left):
    """Of a finished run one key outlives the others: nothing is begun, written or left without an end."""
    run.started(part(), part(), policy="first")
    run.begin(0, "a")
    run.begin(1, "b")
    run.done(0, "a")
    run.complete(seen="n0")
    keep = getattr(run.keys, left)(run.id)
    for key in run.redis.scan_iter(f"*:{run.id}*"):
        if key != keep:
            run.redis.delete(key)

    assert run.begin(1, "c") == "gone"
    assert run.done(1, "b") == "gone"
    assert run.release(1, "b").code == "none"
    assert run.open(part(), n=1, seen="n0") == "gone"
    assert run.complete(seen="n0", token="other") == "gone"
    assert run.store.repair(run.id, "0", "1") is None
    assert run.store.repair(run.id) is None
    assert set(run.redis.scan_iter(f"*:{run.id}*")) <= {keep}
