"""Workers that die, stop, are cut off or share a name. Real processes: what they leave goes on elsewhere, once."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from processes import client_of, due, kill_child, send_again, steal
from runs import Runs, part, refs
from status import get_status, here
from waiting import wait_until

QUIET = ("--without-mingle", "--without-gossip")


@pytest.fixture
def deadly(redis_url, monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import deadly

    with client_of(deadly.app, redis_url):
        yield deadly


@pytest.fixture
def start(deadly, worker):
    """Starts workers of the app, killed in the end: how they stop is asked by each test."""
    started = []

    def start(app: str = "deadly", **options: Any) -> Any:
        node = worker(app, options=QUIET, **options)
        started.append(node)
        return node

    yield start
    for node in started:
        node.kill()


@pytest.fixture
def began(redis_client):
    return lambda: redis_client.lrange("began", 0, -1)


@pytest.fixture
def ended(redis_client):
    return lambda: redis_client.lrange("ended", 0, -1)


def sweeper_of(run_id: str) -> str:
    """The node name of the worker that sweeps the run's shard."""
    store = here.store()
    holder = store.redis.get(store.keys.lease(store.keys.shard_of(run_id))) or ""
    return str(holder).partition("~")[0].partition("@")[0]


# --- killed ----------------------------------------------------------------------------


def test_child_killed_message_to_other_host(start, deadly, redis_client, began):
    """The message comes again elsewhere, is refused as the claim lives, and is acked; then the parent gives it back."""
    first = start(concurrency=1, name="w1")
    handle = deadly.several.submit(9, 1, run_id="r")
    wait_until(began, "the step runs")
    second = start(concurrency=1, name="w2")
    deadly.app.control.cancel_consumer("celery", destination=[f"w1@{socket.gethostname()}"])
    wait_until(lambda: "Canceling queue celery" in first.output(), "only the other takes what comes again")
    send_again(deadly.app, "r")
    wait_until(lambda: "is not run: held" in second.output(), "the other host refuses it")
    kill_child(first)

    assert handle.result(timeout_s=30) == ["r.0 1"]
    assert began() == ["r.0"] * 2


def test_whole_host_dies_sweeper_included(start, deadly, began):
    handle = deadly.several.submit(1, 2, run_id="r")
    first = start(name="w1")
    wait_until(lambda: len(began()) == 2, "both steps run")
    wait_until(lambda: sweeper_of("r") == "w1", "it sweeps the shard")

    first.kill()
    start(name="w2")

    assert handle.result(timeout_s=30) == ["r.0 1", "r.1 1"]


def test_sweeper_dies_holding_timers(start, deadly):
    first = start(name="w1")
    handle = deadly.sleeps.submit(3, run_id="r")
    wait_until(lambda: get_status("r").state == "suspended", "it sleeps")
    wait_until(lambda: sweeper_of("r") == "w1", "it holds the shard and its timers")
    start(name="w2")

    first.kill()

    assert 3 <= handle.result(timeout_s=20) < 8


def test_zombie_pops_then_dies(start, deadly, redis_client):
    """Whoever took the message never began it: nothing has died that a claim would show."""
    handle = deadly.several.submit(0, 1, run_id="r")
    assert len(steal(redis_client)) == 1  # its turn

    start()

    assert handle.result(timeout_s=20) == ["r.0 1"]


def test_lost_without_death(start, deadly, redis_client, ended):
    """The messages of its steps are gone, and all processes live."""
    node = start(concurrency=1)
    assert deadly.several.submit(0, 1).result(timeout_s=20)
    redis_client.delete("ended")
    deadly.several.submit(1.5, 1, run_id="busy")
    wait_until(lambda: "busy" in str(redis_client.lrange("began", 0, -1)), "the worker is busy")
    handle = deadly.several.submit(0, 8, run_id="r")
    steal(redis_client)

    assert handle.result(timeout_s=40) == [f"r.{n} 1" for n in range(8)]
    assert node.alive
    assert sorted(name for name in ended() if name[0] == "r") == [f"r.{n}" for n in range(8)]


def test_thread_pool_lost_finish(start, deadly, began):
    """The outcome was not recorded and the process lives on: the claim dies with the request."""
    start("forgetful", pool="threads")

    assert deadly.several.submit(0, 1).result(timeout_s=30)

    assert len(began()) == 2


# --- stopped ---------------------------------------------------------------------------


def test_warm_stop_with_step_longer_than_lease(start, deadly, began, ended):
    handle = deadly.several.submit(8, 1, run_id="r")
    first = start(concurrency=1, name="w1")
    wait_until(began, "the step runs")
    start(concurrency=1, name="w2")

    first.stop(20)

    assert handle.result(timeout_s=20) == ["r.0 1"]
    assert began() == ended() == ["r.0"]
    assert "is given to another" not in first.output()


def test_lost_in_warm_stop(start, deadly, began, ended):
    """What a worker has fetched and not begun goes back when it stops, or is found by the sweep."""
    handle = deadly.several.submit(2, 6, run_id="r")
    first = start(concurrency=1, name="w1")
    wait_until(began, "the first step runs, the others are in its hand")

    first.stop(20)
    start(concurrency=6, name="w2")

    assert handle.result(timeout_s=40) == [f"r.{n} 1" for n in range(6)]
    assert sorted(began()) == sorted(ended()) == [f"r.{n}" for n in range(6)]


def test_prefetched_behind_long_step(start, deadly, began, ended):
    """What one worker holds back another runs, and no body runs twice."""
    handle = deadly.several.submit(5, 3, run_id="r")
    start(concurrency=1, name="w1")
    wait_until(began, "the first step runs, the others are in its hand")
    start(concurrency=2, name="w2")

    assert handle.result(timeout_s=30) == [f"r.{n} 1" for n in range(3)]
    wait_until(lambda: not due(), "nothing is due any more")
    assert sorted(began()) == sorted(ended()) == [f"r.{n}" for n in range(3)]


def test_rolling_restarts_do_not_use_up_attempts(start, deadly, began, ended):
    """Warm stops while runs go on: each step has one attempt (`Retry(1)`), and each body runs once."""
    nodes = [start(concurrency=2, name=f"w{n}") for n in range(2)]
    handles = [deadly.in_a_row.submit(0.4, 6, run_id=f"r{n}") for n in range(4)]

    for lap in range(6):
        nodes[lap % 2].stop(20)
        nodes[lap % 2].start()

    for handle in handles:
        assert handle.result(timeout_s=60) == [f"{handle.run_id}.{n} 1" for n in range(6)]
    assert sorted(began()) == sorted(ended()) == sorted(f"r{run}.{n}" for run in range(4) for n in range(6))


def test_a_stop_that_lost_its_patience_costs_no_life(start, deadly, redis_client, began):
    handle = deadly.several.submit(2.5, 1, run_id="r")

    def told_to_stop() -> bool:
        claim, told = redis_client.hmget(here.store().keys.join("r", 0), ["c0", "y0"])
        return bool(claim) and claim.partition("|")[0] == told

    for _ in range(3):
        before = len(began())
        node = start(concurrency=1, env={"CELERIAC_MAX_LIVES": "2"})
        wait_until(lambda before=before: len(began()) > before, "the step runs", timeout_s=20)
        node.kill(signal.SIGTERM)
        wait_until(told_to_stop, "it is noted that its worker stops")
        node.kill()
    start(concurrency=1, env={"CELERIAC_MAX_LIVES": "2"})

    assert handle.result(timeout_s=30) == ["r.0 1"]


# --- who is who ------------------------------------------------------------------------


def test_two_containers_one_hostname(start, deadly, began):
    """Both live, both are `w@host`: one's claims are not the other's, and one's death not the other's."""
    first = start(name="w", concurrency=1)
    handle = deadly.several.submit(12, 1, run_id="r")
    wait_until(began, "the first one runs it")
    second = start(name="w", concurrency=1)
    send_again(deadly.app, "r")
    assert began() == ["r.0"], "the step is left to who runs it"

    first.kill()

    assert handle.result(timeout_s=40) == ["r.0 1"]
    assert began().count("r.0") == 2
    assert second.alive


def test_same_pid_new_container(redis_client):
    """Nothing asks for a pid: a claim of a process that is gone is not revived by one that looks the same."""
    run = Runs(redis_client).started(part())
    run.begin(0, "a")
    run.tick(5)

    assert run.store.vouch(run.id, [(0, "0", "b")]) == 0  # same worker name, pid and step, another delivery
    assert refs(run.release(0)) == [("0", 1)]
    assert run.begin(0, "b") == "granted"
    assert run.fail(0, "a") == "superseded"


def test_a_killed_pool_process_that_had_a_turn_gives_it_back_at_once(start, deadly):
    node = start(concurrency=1)
    assert deadly.several.submit(0, 1).result(timeout_s=20)
    for lap in range(5):
        handle = deadly.in_a_row.submit(0, 3, run_id=f"lap-{lap}")
        kill_child(node)
        assert len(handle.result(timeout_s=20)) == 3


# --- code that is missing --------------------------------------------------------------


def test_a_step_goes_on_to_a_worker_that_has_it_and_the_status_says_why_it_waits(start, deadly, redis_client):
    knows = start(name="w1", concurrency=1)
    handle = deadly.in_a_row.submit(1, 2, run_id="r")
    wait_until(lambda: redis_client.llen("began"), "the first step runs")
    knows.kill()
    start("ignorant", name="w2", concurrency=1)

    why = wait_until(lambda: get_status("r").steps[0].waits, "the status says why it waits", timeout_s=30)
    assert "worker w2@" in why
    assert "has no step 'deadly.long': start a worker that imports it" in why
    start(name="w3", concurrency=1)

    assert handle.result(timeout_s=90) == ["r.0 1", "r.1 1"]
    assert not any(step.waits for step in get_status("r").steps)


def test_a_turn_of_an_unknown_workflow_is_parked_until_somebody_has_it(start, deadly):
    handle = deadly.several.submit(0, 1, run_id="r")
    ignorant = start("ignorant", name="w1")

    status = handle.wait_for(lambda status: status.error is not None, timeout_s=20)
    assert status.state == "suspended"
    assert status.error.error_type == "status.errors.UnknownWorkflow"
    assert "has no workflow 'deadly.several'" in status.error.message
    start(name="w2")

    assert handle.result(timeout_s=90) == ["r.0 1"]
    assert get_status("r").error is None
    assert ignorant.output().count("this worker has no") < 15, "it is not sent around in a busy loop"
