"""advance and give_back: outcomes are recorded with what their turn does next, or not at all. Real Redis, no worker."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from runs import Runs, part
from status.ahead import Ahead, Finish, GivenBack
from status.records import Wanted


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


def token_of(p: int) -> str:
    return f"{p:032x}"


def wanted(*parts: int, timeout_ms: int = 0) -> list[Wanted]:
    return [Wanted(str(p), token_of(p), "w1", timeout_ms, 500 if timeout_ms else -1) for p in parts]


def went(run: Runs, *parts: int, n: int = 0) -> Ahead:
    """A process has run these parts, and went on with what they gave."""
    return Ahead([Finish(run.ref(p, n), token_of(p), "done", f"v{p}", 5, ended_ms=1000 + p) for p in parts])


def granted(run: Runs, count: int, **more: object) -> Runs:
    run.submit()
    assert run.open(*[part()] * count, wanted=wanted(*range(count)), **more) == "granted"
    return run


def opens_next(run: Runs, ahead: Ahead, last: int) -> object:
    return run.opening(part(), n=1, seen=f"n0|{token_of(last)}", wanted=wanted(0), ahead=ahead)


def test_all_parts_that_a_process_wants_are_its_own_or_none_is(run):
    run.submit()
    opening = run.opening(part(), part(), part(), wanted=wanted(0, 2, timeout_ms=4000))

    assert (opening.code, len(opening.grants)) == ("granted", 2)
    assert all(grant.deadline_ms == grant.now_ms + 4000 for grant in opening.grants)
    assert [run.begin(p, "other") for p in range(3)] == ["held", "granted", "held"]

    again = run.opening(part(), part(), part(), wanted=wanted(0, 2, timeout_ms=4000))
    assert [grant.deadline_ms for grant in again.grants] == [grant.deadline_ms for grant in opening.grants]
    run.release(2, token_of(2))
    assert run.opening(part(), part(), part(), wanted=wanted(0, 2, timeout_ms=4000)).code == "opened"


def test_what_parts_gave_is_recorded_with_the_next_await(run):
    ahead = went(granted(run, 2), 0, 1)

    opening = opens_next(run, ahead, last=1)

    assert (opening.code, [ending.code for ending in ahead.endings]) == ("granted", ["recorded", "decided"])
    assert (run.outcome(0), run.outcome(1)) == ("v0", "v1")
    # The turn has gone on with this time: a replay must find it.
    assert json.loads(run.redis.hget(run.keys.journal(run.id), "0"))["at"] == 1001
    assert run.begin(0, "other", n=1) == "held"


def test_what_parts_gave_is_recorded_with_the_end_of_the_run(run):
    ahead = went(granted(run, 1), 0)

    assert run.complete(seen=f"n0|{token_of(0)}", ahead=ahead) == "completed"
    assert (run.state, run.outcome(0)) == ("completed", "v0")


def test_a_turn_that_asks_again_is_told_the_same(run):
    ahead = went(granted(run, 3), 0, 1, 2)
    opens_next(run, ahead, last=2)
    before = run.everything()

    again = opens_next(run, replace(ahead, recorded=False), last=2)

    assert again.code == "granted"
    assert run.everything() == before


def test_a_turn_goes_on_only_with_what_is_recorded(run):
    """Its claim on a part was dead, and another process has recorded something else; the rest it decides itself."""
    ahead = went(granted(run, 2), 0, 1)
    run.tick(10)
    assert run.begin(0, "other") == "granted"
    assert run.finish("done", 0, "other", outcome="v99").code == "recorded"

    opening = opens_next(run, ahead, last=1)

    assert opening.code == "moved"
    assert (run.outcome(0), run.outcome(1), run.field("open")) == ("v99", "v1", "")
    assert ahead.endings[-1].code == "decided", "it takes the turn that this owes, from the start"
    assert not ahead.recorded


def test_a_turn_whose_await_was_decided_meanwhile_goes_no_further(run):
    ahead = went(granted(run, 1), 0)
    run.cancel()

    assert opens_next(run, ahead, last=0).code == "moved"
    assert run.complete(seen=f"n0|{token_of(0)}", ahead=replace(ahead, recorded=False)) == "moved"
    assert (run.outcome(0), run.late()) == (None, {"0.0": "v0"})


def test_a_part_that_is_given_back_is_due_and_anybodys(run):
    granted(run, 2)

    ending = run.store.give_back(run.id, [GivenBack(0, "1", token_of(1)), GivenBack(0, "0", "not its token")])

    assert ending.code == "returned"
    assert run.begin(0, "other") == "held"
    assert run.begin(1, "other") == "granted"
    assert run.redis.hget(run.keys.join(run.id, 0), "l1") is None, "that cost it no life"


def test_who_fails_gives_back_what_it_has_not_begun_and_nobody_runs_it(run):
    granted(run, 3)
    failed = Finish(run.ref(1), token_of(1), "failed", 'e{"message":"no"}', 5, gives=3)
    done = Finish(run.ref(0), token_of(0), "done", "v0", 5)

    endings = run.store.record([done, failed], [GivenBack(0, "2", token_of(2))])

    assert [ending.code for ending in endings] == ["recorded", "returned", "decided"]
    assert endings[-1].stop == ()
    assert set(endings[-1].entries) == {"0", "0.0", "0.1"}
    assert run.begin(2, "other") == "gone"
    assert run.step_state(2) == "stopped"


def test_the_last_claim_that_a_settle_waits_for_may_be_given_back(run):
    granted(run, 2)
    run.cancel()
    assert run.settle(1) == "opened"
    assert run.done(0, token_of(0)) == "late"

    ending = run.store.give_back(run.id, [GivenBack(0, "1", token_of(1))])

    assert ending.code == "decided"
    assert run.field("open") == ""


@pytest.mark.parametrize("policy", ["all", "settle"])
@pytest.mark.parametrize(
    ("parts", "more"),
    [
        ([part()], {}),
        ([part()] * 3, {}),
        ([part(within_ms=9000), part(undo=True)], {}),
        ([part(), part()], {"timeout_ms": 9000}),
    ],
    ids=["one", "three", "within and undo", "timeout"],
)
@pytest.mark.parametrize("timeout_ms", [0, 4000], ids=["", "limited"])
def test_parts_that_end_together_leave_what_they_leave_one_by_one(run, policy, parts, more, timeout_ms):
    def left(*, together: bool) -> str:
        run.redis.flushall()
        run.submit()
        claims = wanted(*range(len(parts)), timeout_ms=timeout_ms)
        assert run.open(*parts, policy=policy, wanted=claims, **more) == "granted"
        ahead = went(run, *range(len(parts)))
        if not together:
            for finish in ahead.finishes:
                run.store.record([finish])
            ahead = None
        assert opens_next(run, ahead, last=len(parts) - 1).code == "granted"
        return re.sub(r"\b\d{13}(\.0)?\b", "T", json.dumps(run.everything()))

    assert left(together=True) == left(together=False)


def test_parts_of_which_one_runs_elsewhere_end_one_by_one(run):
    run.submit()
    assert run.open(part(), part(), wanted=wanted(0)) == "granted"

    ahead = went(run, 0)

    assert opens_next(run, ahead, last=0).code == "moved"
    assert (run.outcome(0), run.decision(), [ending.code for ending in ahead.endings]) == ("v0", None, ["recorded"])
