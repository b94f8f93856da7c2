"""Figures of runs, from what the scripts count on a real Valkey."""

# ruff: noqa: S106, a token here is no password
from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runs import Runs, part
from status import here, metrics
from status.figures import Figures, Queue, as_json, bounds_s, gather
from status.keys import Keys
from status.records import News, Remark


@pytest.fixture
def run(redis_client: Any) -> Runs:
    return Runs(redis_client)


def figures(run: Runs) -> Figures:
    return gather(run.redis, run.keys)


def counts(found: Any) -> dict[tuple[str, ...], int]:
    return {labels: times.count for labels, times in found.items()}


def test_runs_steps_and_phases_are_counted_when_they_end(run):
    run.submit()
    run.open(part(), part(), news=News(("paying", 0.2, "{}")))
    run.begin(0)
    run.begin(1, "b")
    run.done(0)
    run.done(1, "b")
    before = figures(run)
    run.complete(seen="n0", news=News(("done", 1.0, "{}")))

    after = figures(run)

    assert (before.submitted, counts(before.runs), counts(before.steps)) == ({("w",): 1}, {}, {})
    assert counts(after.runs) == {("w", "completed"): 1}
    assert counts(after.steps) == {("s", "done"): 2}
    assert counts(after.phases) == {("w", "paying"): 1, ("w", "done"): 1}
    assert (before.states["running"], after.states["completed"]) == (1, 1)


def test_an_answer_that_is_asked_for_again_counts_once(run):
    run.started(part())
    run.begin()
    run.retry()
    run.retry()
    run.fire("retry", 0)
    run.begin(token="b", attempt=2)
    run.done(token="b", attempt=2)
    run.done(token="b", attempt=2)
    run.submit()
    run.complete(seen="n0")
    run.complete(seen="n0")

    found = figures(run)

    assert (found.submitted, found.retries) == ({("w",): 1}, {("s",): 1})
    assert (counts(found.runs), counts(found.steps)) == ({("w", "completed"): 1}, {("s", "done"): 1})


def test_what_took_longer_is_in_a_later_bucket_and_in_the_sum(run):
    run.started(part())
    run.begin()
    run.done()
    run.redis.hset(run.keys.steps("r"), "0.0:s", "done|1|1000000000000|1000000000700")
    run.redis.hset(run.keys.run("r"), "submitted_ms", "0")
    run.complete(seen="n0")

    found = figures(run)

    step = found.steps["s", "done"]
    assert (step.buckets[bounds_s().index(1.0)], step.sum_s) == (1, 0.7)
    assert found.runs["w", "completed"].buckets[-1] == 1


def test_a_run_that_is_taken_up_again_counts_again_but_not_its_steps_of_before(run):
    run.started(part(), part(), policy="settle")
    run.begin(0)
    run.done(0)
    run.begin(1, "b")
    run.fail(1, "b")
    run.redis.hset(
        run.keys.steps("r"), mapping={f"0.{p}:s": f"{how}|1|1000|2000" for p, how in enumerate(("done", "failed"))}
    )
    run.redis.hset(run.keys.run("r"), "submitted_ms", "500")
    run.complete(seen="n0", state="failed", error='{"step":"s","error_type":"E","message":"no","code":500}')
    run.store.retry("r", 0, finished_ms=run.field("finished_ms"), token="again")
    run.open(part(), part(), policy="settle", seen=run.field("seen"), nonce="m0")
    run.begin(1, "c", nonce="m0")
    run.done(1, "c", nonce="m0")
    run.complete(seen="m0", token="second end")

    found = figures(run)

    assert counts(found.runs) == {("w", "failed"): 1, ("w", "completed"): 1}
    assert counts(found.steps) == {("s", "done"): 2, ("s", "failed"): 1}


def test_lost_claims_and_undos_are_counted(run):
    run.started(part())
    run.begin()
    run.tick(5)
    assert run.release().code == "start"
    run.begin(token="b")
    run.done(token="b")
    run.store.count_resent("r", "turn")
    remarks = (Remark("saga.undone", "refund"), Remark("saga.undo_failed", "release"))
    run.complete(seen="n0", state="compensation_failed", news=News(None, remarks))

    found = figures(run)

    assert found.recovered == {("claim",): 1, ("turn",): 1}
    assert found.undos == {("refund", "done"): 1, ("release", "failed"): 1}


def test_timers_are_open_until_they_fire_and_late_when_nobody_does(run):
    run.started(part(after_ms=60_000))
    open_one = figures(run)
    (name,) = run.redis.zrange(run.keys.timers(run.shard), 0, -1)
    run.redis.zadd(run.keys.timers(run.shard), {name: 1})

    assert (open_one.timers, open_one.late, figures(run).late) == (1, 0, 1)


def test_names_without_end_do_not_fill_redis(run):
    field = {f"s|step {number}|done|1": 1 for number in range(2000)}
    run.redis.hset(run.keys.counts(run.shard), mapping=field)
    run.started(part())
    run.begin()
    run.done()
    run.complete(seen="n0")

    found = figures(run)

    assert run.redis.hlen(run.keys.counts(run.shard)) <= 2010
    assert (found.steps["other", "done"].count, found.submitted["other",]) == (1, 1)


def test_a_name_with_a_bar_or_without_end_stays_one_label(run):
    assert run.store.submit("r", workflow="a|b\n", input_json="[[],{}]", digest="d", token="t")
    other = Runs(run.redis, run_id="r")
    other.store.submit("r2", workflow="é" * 200, input_json="[[],{}]", digest="d", token="t")

    assert figures(run).submitted == {("a_b_",): 1, ("other",): 1}


def test_prometheus_can_read_them(run, redis_url, monkeypatch):
    run.started(part())
    run.begin()
    run.done()
    run.complete(seen="n0")
    registry = CollectorRegistry()
    with_queue = [Queue("mail", 3, 12.5)]
    monkeypatch.setattr("status.figures._queues", lambda: with_queue)
    registry.register(metrics.RunCollector(lambda: figures(run)))

    text = generate_latest(registry).decode()

    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[("celeriac_up",)] == 1
    assert samples[("celeriac_runs_submitted_total", ("workflow", "w"))] == 1
    assert samples[("celeriac_runs", ("state", "completed"))] == 1
    assert samples[("celeriac_queue_lag_seconds", ("queue", "mail"))] == 12.5
    infinite = ("celeriac_step_duration_seconds_bucket", ("le", "+Inf"), ("state", "done"), ("step", "s"))
    assert samples[infinite] == samples[("celeriac_step_duration_seconds_count", ("state", "done"), ("step", "s"))] == 1
    assert json.loads(json.dumps(as_json(figures(run))))["queues"] == [
        {"queue": "mail", "messages": 3, "oldest_s": 12.5}
    ]


def test_a_redis_that_does_not_answer_is_a_figure_too(valkey):
    here.use(valkey.url)
    collector = metrics.RunCollector()
    valkey.kill()
    try:
        (only,) = collector.collect()
    finally:
        here.use(None)
        valkey.start()

    assert (only.name, only.samples[0].value) == ("celeriac_up", 0)


def test_counts_are_of_a_shard_and_on_its_slot():
    assert Keys(16).counts(3) == "celeriac:{3}:counts"


def test_each_round_counts_its_steps_its_undos_and_the_phase_that_it_ends(run):
    run.submit()
    run.open(part(), news=News(("first", 0.2, "{}")))
    run.begin()
    run.done()
    undone = (Remark("saga.undone", "u", ""),)
    run.store.restart(
        "r", seen="n0", token="t", input_json="[[],{}]", first=1, entered=0, carried="{}",
        news=News(("second", 0.4, "{}"), undone),
    )  # fmt: skip
    after_one = figures(run)
    run.open(part(), n=1, nonce="n1", seen=run.field("seen"))
    run.begin(n=1, nonce="n1")
    run.done(n=1, nonce="n1")
    run.complete(seen="n1")

    found = figures(run)

    assert (counts(after_one.steps), counts(after_one.phases)) == ({("s", "done"): 1}, {})
    assert (counts(found.steps), found.undos) == ({("s", "done"): 2}, {("u", "done"): 1})
    assert counts(found.phases) == {("w", "first"): 1, ("w", "second"): 1}


def test_a_step_that_lost_its_lives_counts_as_failed(run):
    run.started(part(), policy="settle")
    for life in range(5):
        run.begin(token=f"t{life}")
        run.release(token=f"t{life}")
    run.complete(seen="n0", state="failed")

    assert counts(figures(run).steps) == {("s", "failed"): 1}


def test_a_step_that_ran_out_of_time_counts_as_failed(run):
    run.started(part(), policy="settle")
    run.begin(timeout_ms=1, retry_in_ms=-1)
    run.fire("attempt", 0)
    run.complete(seen="n0", state="failed")

    assert counts(figures(run).steps) == {("s", "failed"): 1}


def test_a_phase_that_goes_on_after_a_retry_counts_again(run):
    run.submit()
    run.open(part(), news=News(("paying", 0.2, "{}")))
    run.begin()
    run.fail()
    run.complete(seen="n0", state="failed")
    run.store.retry("r", 0, finished_ms=run.field("finished_ms"), token="again", by="")
    run.open(part(), nonce="m0", seen=run.field("seen"))
    run.begin(nonce="m0")
    run.done(nonce="m0")
    run.complete(seen="m0", token="end")

    assert counts(figures(run).phases) == {("w", "paying"): 2}
