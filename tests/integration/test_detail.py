"""All about one run, as its page has it; and who did what to it. Real Redis, no worker."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

import json
from typing import Any

import pytest

from runs import ERROR, Runs, part
from status import acting, here, history, operating
from status.detail import Details
from status.errors import PayloadError, RetryRefused, RunNotFound
from status.masking import HIDDEN, Mask
from status.records import NewPart


@pytest.fixture
def run(redis_client) -> Runs:
    return Runs(redis_client)


def details(run: Runs, **more: Any) -> Details:
    return Details(run.redis, run.keys, Mask(), **more)


def parts(run: Runs, n: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = details(run).of(run.id)["awaits"][n]["parts"]
    return found


def test_each_attempt_has_its_own_times(run):
    run.started(part())
    run.begin(0, "a")
    run.finish("retry", 0, "a", outcome=ERROR, retry_in_ms=0)
    run.fire("retry", 0)
    run.begin(0, "b", attempt=2)

    (one,) = parts(run)

    assert [(each["attempt"], each["how"]) for each in one["tries"]] == [(1, "failed")]
    assert one["tries"][0]["start_ms"] <= one["tries"][0]["end_ms"] <= one["start_ms"]
    assert (one["state"], one["attempt"], one["end_ms"]) == ("running", 2, None)


def test_an_attempt_whose_process_died_is_kept_as_lost(run):
    run.started(part())
    run.begin(0, "a")
    run.store.release(run.ref(0), token="a", call_token="r", outcome="u{}")

    (one,) = parts(run)

    assert [each["how"] for each in one["tries"]] == ["lost"]
    assert one["state"] == "waiting"


def test_of_very_many_attempts_the_last_ones_are_kept(run):
    run.started(part())
    for attempt in range(1, 60):
        run.begin(0, f"a{attempt}", attempt=attempt)
        run.finish("retry", 0, f"a{attempt}", attempt=attempt, outcome=ERROR, retry_in_ms=0)
        run.fire("retry", 0)

    tries = parts(run)[0]["tries"]

    assert tries[-1]["attempt"] == 59
    assert 15 < len(tries) < 40


def test_a_race_names_its_winner_and_what_was_stopped(run):
    run.started(part(), part(), policy="first", fingerprint="race(s*2)")
    run.begin(0, "a")
    run.finish("done", 0, "a", outcome="v1")

    (race,) = details(run).of("r")["awaits"]

    assert (race["kind"], race["policy"], race["verdict"], race["by"]) == ("race", "first", "won", ["0"])
    assert [(one["state"], one["won"]) for one in race["parts"]] == [("done", True), ("stopped", False)]


def test_a_timer_says_when_it_is_due(run):
    run.started(NewPart("sleep", "", "sleep", delay_ms=60_000), timeout_ms=90_000)

    (one,) = details(run).of("r")["awaits"]

    assert (one["parts"][0]["kind"], one["open"]) == ("sleep", True)
    assert one["parts"][0]["due_ms"] == pytest.approx(one["opened_ms"] + 60_000, abs=5000)
    assert one["limit_ms"] == pytest.approx(one["opened_ms"] + 90_000, abs=5000)


def test_secrets_are_shown_nowhere(run):
    text = json.dumps([["ada", "hunter2"], {"api_key": "hunter2", "to": "x"}])
    run.store.submit("r", workflow="w", input_json=text, digest="d", token="t")
    message = "login failed: password=hunter2"
    error = json.dumps({"step": "s", "error_type": "a.B", "message": message, "code": 1, "traceback": message})
    run.open(part())
    run.begin(0, "a")
    run.finish("failed", 0, "a", outcome="e" + error)
    run.store.complete("r", seen="n0", token="c", state="failed", error=error, result='{"token": "hunter2"}')

    found = details(run, names=lambda _: ["user", "password"]).of("r")

    assert "hunter2" not in json.dumps(found)
    assert "hunter2" not in json.dumps(details(run).step("r", "0.0"))
    assert json.loads(found["head"]["input"]) == {"user": "ada", "password": HIDDEN, "api_key": HIDDEN, "to": "x"}
    assert found["head"]["error"]["type"] == "B"


def test_values_of_steps_are_read_one_at_a_time(run):
    big = "v" + json.dumps("x" * 100_000)
    run.started(part())
    run.begin(0, "a")
    run.finish("done", 0, "a", outcome=big)

    assert len(json.dumps(details(run).of("r"))) < 10_000
    value = details(run).step("r", "0.0")["value"]
    assert value.endswith("more characters")
    assert len(value) < 21_000


def test_a_run_that_is_not_there_is_not_found(run):
    with pytest.raises(RunNotFound):
        details(run).of("never-was")
    with pytest.raises(RunNotFound):
        details(run).step("never-was", "0.0")


# --- who did what ----------------------------------------------------------------------


def operators(run: Runs) -> list[tuple[str, str, Any]]:
    rows = run.redis.xrange(run.keys.events(run.id))
    found = [(fields["k"], fields["n"], fields["d"]) for _, fields in rows]
    return [(kind, name, json.loads(told)) for kind, name, told in found if kind.startswith("operator.")]


def test_a_cancel_says_who_asked_and_why(run):
    run.started(part())

    ending = run.store.cancel("r", "of no use", token="t", by="ada")
    again = run.store.cancel("r", "of no use", token="t", by="ada")

    assert (ending.code, again.code) == ("decided", "decided")
    assert operators(run) == [("operator.cancel", "", {"by": "ada", "reason": "of no use"})]


def test_a_cancel_by_a_program_names_nobody(run):
    run.started(part())

    run.store.cancel("r", "of no use", token="t")

    assert operators(run) == []


def test_an_abandon_says_who_asked_and_why(run):
    run.started(part())

    operating.abandon(run.store, "r", 'the "code" is gone', [], by="ada")

    assert operators(run) == [("operator.abandon", "", {"by": "ada", "reason": 'the "code" is gone'})]


def test_a_retry_says_who_asked(run):
    run.started(part())
    run.begin(0, "a")
    run.finish("failed", 0, "a", outcome=ERROR)
    run.store.complete("r", seen="n0", token="c", state="failed", error=ERROR[1:])
    assert details(run).of("r")["can"] == {"cancel": False, "abandon": False, "retry": True}

    operating.retry(run.store, "r", by="ada")

    assert operators(run) == [("operator.retry", "1", {"by": "ada"})]


@pytest.mark.parametrize(("outcome", "verb"), [("vtrue", "resolve"), (ERROR, "reject")])
def test_a_promise_says_who_resolved_or_rejected_it(run, outcome, verb):
    run.started(NewPart("promise", "", "ok"))

    run.store.resolve("r", "ok", outcome, token="t", by="ada")
    run.store.resolve("r", "ok", outcome, token="late", by="eve")

    assert operators(run) == [(f"operator.{verb}", "ok", {"by": "ada"})]


def test_what_was_asked_for_in_vain_is_said_and_changes_nothing(redis_client, redis_url):
    run = Runs(redis_client, shards=16)
    here.use(redis_url)
    try:
        run.submit()
        run.store.complete("r", seen="", token="c", state="completed")

        assert acting.cancel("r", "", by="ada").text == "r has ended already: there is nothing to cancel"
        assert not acting.reject("r", "ok", "no", 500, by="ada").done
        assert (
            acting.resolve("r", "ok", "1", by="ada").text == "r has ended already, it is completed: nothing was changed"
        )
        with pytest.raises(RetryRefused):
            acting.retry("r", by="ada")
        with pytest.raises(PayloadError, match="is not JSON"):
            acting.resolve("r", "ok", "{", by="ada")
        with pytest.raises(RunNotFound):
            acting.resolve("never-was", "ok", "1", by="ada")
        assert [event.kind for event in history("r")] == ["run.submitted", "run.completed"]
    finally:
        here.use(None)
