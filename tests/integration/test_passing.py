"""The lease of a turn, and awaits that are recorded when they are over: which of it counts. Real Redis, no worker."""

# ruff: noqa: S105, S106, a token here is no password
from __future__ import annotations

import json
from typing import Any

import pytest

from runs import Runs, part
from status.ahead import Ahead, Finish
from status.passages import Passage, PassedPart
from status.records import News, RunRecord, TurnTaken, Wanted
from status.states import State

MINE, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def run(redis_client: Any) -> Runs:
    made = Runs(redis_client)
    made.submit()
    return made


def read(run: Runs, lease: str = MINE) -> RunRecord:
    record = run.store.load_to_go_on(run.id, lease=lease)
    assert record is not None
    return record


def tick(run: Runs, ticks: int) -> None:
    run.redis.incrby(run.keys.tick(run.shard), ticks)


def passage(n: int, *, seen: str | None = None, parts: int = 1, news: News | None = None) -> Passage:
    """Await `n`, all parts of which have succeeded in this process."""
    before = f"n{n - 1}|by{n - 1}" if n else ""
    entry = {"v": "all", "i": "", "at": 1000 + n, "x": f"n{n}", "by": f"by{n}", "fp": "f", "s": parts}
    steps = [PassedPart(str(p), "q|s", f"v{p}", 990 + n, 1000 + n, "s") for p in range(parts)]
    return Passage(
        n,
        before if seen is None else seen,
        f"n{n}",
        f"by{n}",
        "f",
        1000 + n,
        json.dumps(entry),
        MINE,
        news or News(),
        steps,
        lambda: None,
    )


def passed(run: Runs, *passages: Passage) -> bool:
    return run.store.pass_by(run.id, Ahead((), passages))


# --- the lease ---------------------------------------------------------------------------


def test_a_turn_that_has_its_lease_is_nobody_elses(run):
    assert read(run).lease is not None

    with pytest.raises(TurnTaken):
        read(run, OTHER)
    with pytest.raises(TurnTaken):
        read(run, "")
    assert read(run).lease is None, "it has come here before"


def test_a_turn_whose_lease_is_over_may_be_taken_but_goes_by_claims(run):
    read(run)
    tick(run, 3)

    assert read(run, OTHER).lease is None


def test_a_lease_that_is_vouched_for_goes_on(run):
    read(run)
    for _ in range(4):
        tick(run, 2)
        assert run.store.vouch(run.id, [(0, "turn", MINE)]) == 1
    assert run.store.vouch(run.id, [(0, "turn", OTHER)]) == 0

    with pytest.raises(TurnTaken):
        read(run, OTHER)


def test_a_lease_of_a_process_that_is_gone_is_over_at_once_and_its_turn_is_looked_at(run):
    read(run)

    assert not run.store.lapse(run.id, OTHER)
    assert run.store.lapse(run.id, MINE)

    assert read(run, OTHER).lease is None
    assert run.redis.zscore(run.keys.due(run.shard), run.id) == 2


def test_a_lease_is_of_one_end_of_the_journal(run):
    read(run)
    assert run.open(part()) == "opened"
    assert run.begin() == "granted"
    assert run.done() == "decided"

    assert run.store.vouch(run.id, [(0, "turn", MINE)]) == 0
    assert read(run, OTHER).lease is not None


def test_who_ends_the_last_part_has_the_lease_of_the_turn(run):
    run.open(part())
    run.begin()

    ending = run.finish("done", gives="all")

    assert ending.record is not None
    assert ending.record.lease is not None
    assert ending.record.lease.token == "a"
    with pytest.raises(TurnTaken):
        read(run, OTHER)


def test_a_turn_that_is_parked_may_be_taken_by_anybody(run):
    read(run)
    run.store.park(run.id, seen="", error="{}")

    assert read(run, OTHER).fields["state"] == State.SUSPENDED


def test_no_lease_is_given_while_a_restarted_redis_waits_for_what_runs(run):
    run.redis.set(f"{run.keys.tick(run.shard)}:grace", 5)

    assert read(run).lease is None


# --- awaits that were passed -------------------------------------------------------------


def test_a_way_through_several_awaits_is_recorded_whole(run):
    read(run)
    status = News(("packed", 0.5, '{"by":"me"}'), ())

    assert passed(run, passage(0, parts=2), passage(1, news=status))

    assert (run.outcome(0), run.outcome(1), run.outcome(0, n=1)) == ("v0", "v1", "v0")
    assert (run.state, run.field("phase"), run.field("seen"), run.field("decider")) == (
        "running",
        "packed",
        "n1",
        "by1",
    )
    assert (run.step_state(0), run.step_state(0, n=1)) == ("done", "done")
    assert run.redis.zscore(run.keys.due(run.shard), run.id) is not None, "its turn is owed"
    assert not run.joined(0)
    with pytest.raises(TurnTaken):
        read(run, OTHER)


def test_asked_again_it_is_recorded_once(run):
    read(run)
    assert passed(run, passage(0), passage(1))
    before = run.everything()

    assert passed(run, passage(0), passage(1))

    assert run.everything() == before


def test_what_is_passed_goes_with_what_comes_next(run):
    read(run)
    ahead = Ahead((), [passage(0)])

    opening = run.opening(part(), n=1, seen="n0|by0", ahead=ahead)

    assert (opening.code, ahead.recorded, run.outcome(0)) == ("opened", True, "v0")
    ended = Ahead((), [passage(0)])
    assert run.store.complete(run.id, seen="n0|by0", token="end", state="completed", ahead=ended) == "moved"


@pytest.mark.parametrize("what", ["moved on", "opened by another", "ended", "restarted Redis"])
def test_what_is_not_as_the_turn_has_read_it_is_passed_by_nobody(run, what):
    read(run)
    if what == "moved on":
        run.open(part())
        run.begin()
        run.done()
    elif what == "opened by another":
        run.open(part())
    elif what == "ended":
        run.store.complete(run.id, seen="", token="end", state="completed", result="1")
    else:
        run.redis.set(f"{run.keys.tick(run.shard)}:grace", 5)
    before = run.everything()

    assert not passed(run, passage(0), passage(1))

    assert run.everything() == before


def test_a_cancel_that_is_noted_meanwhile_is_answered_by_what_is_opened_next(run):
    read(run)
    run.store.cancel(run.id, "enough", token="c")
    ahead = Ahead((), [passage(0)])

    assert run.store.pass_by(run.id, ahead)

    assert (run.outcome(0), run.state, ahead.stops) == ("v0", "cancelling", True)
    assert run.open(part(), n=1, seen="n0|by0") == "answered"


# --- an await that is opened after its parts have begun ------------------------------------


def late(run: Runs, kind: Any, *, n: int = 0, size: int = 2) -> Any:
    token = f"{0:032x}"
    finish = Finish(run.ref(0, n), token, kind, "v1" if kind == "done" else 'e{"message":"no"}', 5, 50, gives=size)
    return run.opening(*[part()] * size, n=n, wanted=[Wanted("0", token, "w1", 0, -1)], late=[finish])


def test_what_came_of_a_part_is_recorded_as_if_it_had_been_claimed(run):
    opening = late(run, "done")

    assert (opening.code, [ending.code for ending in opening.endings]) == ("granted", ["recorded"])
    assert (run.outcome(0), run.step_state(0), run.step_state(1)) == ("v1", "done", "waiting")
    assert run.begin(1, "other") == "granted"


def test_a_part_that_failed_is_made_again(run):
    opening = late(run, "retry")

    assert [ending.code for ending in opening.endings] == ["retrying"]
    assert run.step_state(0) == "retrying"


def test_a_part_that_failed_for_good_decides_its_await(run):
    opening = late(run, "failed")

    assert [ending.code for ending in opening.endings] == ["decided"]
    assert set(opening.endings[0].entries) == {"0", "0.0"}


def test_nothing_is_recorded_of_an_await_that_another_has_opened(run):
    assert run.opening(part(), part(), nonce="theirs").code == "opened"

    opening = late(run, "done")

    assert (opening.code, list(opening.endings), run.outcome(0)) == ("exists", [], None)
