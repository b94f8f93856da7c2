"""A crash before and after each transition and each publish: the run ends right all the same."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import _state

from bench.children import Worker
from canvas import RunFailed
from status import State, get_status, here, history
from waiting import wait_until

BOTH = ("before", "after")

#: In a pool process: the claim, the outcome, the next await, its steps, a turn for another process, the end.
IN_CHILDREN = [
    f"{name}.{when}.{number}"
    for name, number in (
        ("begin", 1), ("begin", 3), ("finish", 1), ("finish", 2), ("finish", 3), ("finish", 4),
        ("open_join", 1), ("open_join", 2), ("open_join", 3), ("open_join", 4),
        ("publish_steps", 1), ("publish_steps", 2), ("complete", 1),
    )
    for when in BOTH
]  # fmt: skip

#: Of steps in place: a turn begins, is ahead of its journal, opens what must be open, the outcome of a step, the end.
IN_PLACE = [
    f"{name}.{when}.{number}"
    for name, number in (
        ("read", 1), ("read", 2), ("advance", 1), ("open_join", 1), ("open_join", 2), ("finish", 1), ("complete", 1),
    )
    for when in BOTH
]  # fmt: skip

#: In a worker's parent process. Who repairs and releases needs something to be lost first.
IN_PARENTS = [
    f"{before}{name}.{when}.1"
    for name, before in (
        ("fire", ""), ("vouch", ""), ("release", "begin.after.1:"), ("repair", "publish_steps.before.1:"),
        ("publish_turn", "open_join.before.1:"),
    )
    for when in BOTH
]  # fmt: skip

IN_CLIENT = [f"{name}.{when}.1" for name in ("submit", "publish_turn") for when in BOTH]

RESULT = ["a", "b", "c", "d"]


@pytest.fixture
def marks(tmp_path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def env(worker_env, marks) -> dict[str, str]:
    # The crashes of one run hit others, too: none is to be given up for that. Each step is a message, however short it
    # was: which points are passed is not to depend on how fast this machine is.
    return worker_env | {"CRASH_MARKS": str(marks), "CELERIAC_MAX_LIVES": "50", "CELERIAC_IN_PLACE_MS": "0"}


@pytest.fixture
def crashing(redis_url, monkeypatch) -> Iterator[Any]:
    """The client's side of tests/apps/crashing.py: it does not die here."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import crashing

    before = _state._tls.current_app
    crashing.app.conf.broker_url = redis_url
    here.use(redis_url)
    crashing.app.set_current()
    yield crashing
    here.use(None)
    _state._tls.current_app = before


class Crew:
    """Workers, each started again when it has died."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers

    def until(self, condition: Callable[[], Any], reason: str, timeout_s: float = 60) -> None:
        def look() -> Any:
            for worker in self.workers:
                if not worker.alive:
                    worker.kill()
                    worker.launch()
            return condition()

        wait_until(look, reason, timeout_s, every_s=0.1)


@pytest.fixture
def crew(crashing, worker, env) -> Iterator[Callable[..., Crew]]:
    started: list[Worker] = []

    def start(number: int, concurrency: int) -> Crew:
        options = ("--without-mingle", "--without-gossip")
        started.extend(worker("crashing", concurrency=concurrency, env=env, options=options) for _ in range(number))
        return Crew(started)

    yield start
    for each in started:
        each.kill()


def ended(run_ids: list[str]) -> bool:
    return all(get_status(run_id).finished for run_id in run_ids) and not due()


def due() -> list[str]:
    store = here.store()
    return [one for shard in range(store.keys.shards) for one in store.redis.zrange(store.keys.due(shard), 0, -1)]


def effects_of(tmp_path: Path, run_id: str) -> Counter[str]:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        rows = connection.execute("SELECT what FROM effects WHERE run_id = ?", [run_id]).fetchall()
    return Counter(what for (what,) in rows)


def assert_crashed(run_id: str, marks: Path) -> None:
    """At each of its points: else nothing was shown."""
    for point in run_id.split(":"):
        assert (marks / f"{run_id}.{point}").exists(), f"{run_id} has not crashed at {point}"


def assert_sane(run_id: str) -> None:
    """Each await was opened and decided once, one after the other, and the end came once and last."""
    kinds = [(event.kind, event.name) for event in history(run_id)]
    joins = [(kind, name) for kind, name in kinds if kind in {"join.opened", "join.decided"}]
    numbers = [str(n) for n in range(len(joins) // 2)]
    assert joins == list(itertools.chain(*((("join.opened", n), ("join.decided", n)) for n in numbers)))
    finals = [kind for kind, _ in kinds if kind in {f"run.{state}" for state in State} - {"run.cancelling"}]
    assert finals == [f"run.{get_status(run_id).state}"]
    assert kinds[0][0] == "run.submitted"
    assert kinds[-1][0] == finals[0]
    assert {step.attempt for step in get_status(run_id).steps} == {1}


def assert_right(order: Any, run_id: str, marks: Path, tmp_path: Path) -> None:
    assert_crashed(run_id, marks)
    assert order.handle(run_id).result(timeout_s=1) == RESULT
    assert effects_of(tmp_path, run_id) == Counter(RESULT)
    assert_sane(run_id)


@pytest.mark.parametrize("name", ["order", "near"], ids=["by messages", "in place"])
def test_killed_at_each_point_of_a_pool_process(crashing, crew, marks, tmp_path, name):
    run_ids = IN_CHILDREN if name == "order" else IN_PLACE
    workflow, supervised = getattr(crashing, name), crew(1, concurrency=4)
    for run_id in run_ids:
        workflow.submit(run_id=run_id)

    supervised.until(lambda: ended(run_ids), "all have ended")

    for run_id in run_ids:
        assert_right(workflow, run_id, marks, tmp_path)


@pytest.mark.timeout(300)  # workers start twenty times
def test_killed_at_each_point_of_a_worker(crashing, crew, marks, tmp_path):
    supervised = crew(2, concurrency=3)
    for run_id in IN_PARENTS:
        crashing.order.submit(run_id=run_id)
    for when in BOTH:
        (marks / f"arm.sweep.{when}").touch()

    supervised.until(lambda: ended(IN_PARENTS), "all have ended", 180)

    assert {mark.name for mark in marks.glob("*sweep*")} == {"sweep.before.1", "sweep.after.1"}
    for run_id in IN_PARENTS:
        assert_right(crashing.order, run_id, marks, tmp_path)


def test_killed_at_each_point_of_a_client(crashing, crew, env, marks, tmp_path):
    supervised = crew(1, concurrency=2)
    submits = "import sys, crashing; crashing.order.submit(run_id=sys.argv[1])"
    for run_id in IN_CLIENT:
        died = subprocess.run([sys.executable, "-c", submits, run_id], env=env, timeout=60, check=False)
        assert died.returncode == -9
        if run_id == "submit.before.1":
            # Nothing is known of it; whoever tries again is confirmed. The others need nobody.
            crashing.order.submit(run_id=run_id)

    supervised.until(lambda: ended(IN_CLIENT), "all have ended")

    for run_id in IN_CLIENT:
        assert_right(crashing.order, run_id, marks, tmp_path)


def test_killed_around_the_cancel_of_a_run_whose_time_is_up(crashing, crew, marks, tmp_path):
    supervised = crew(2, concurrency=2)
    run_ids = [f"cancel.{when}.1" for when in BOTH]
    for run_id in run_ids:
        crashing.late.submit(run_id=run_id, timeout_s=1.5)

    supervised.until(lambda: ended(run_ids), "both have ended")

    for run_id in run_ids:
        assert_crashed(run_id, marks)
        with pytest.raises(RunFailed, match="its time was up"):
            crashing.late.handle(run_id).result(timeout_s=1)
        assert get_status(run_id).state == State.TIMED_OUT
        assert effects_of(tmp_path, run_id) == Counter(["c", "undo"])
        assert_sane(run_id)


def test_killed_around_parking_a_run_that_the_code_does_not_fit(crashing, crew, marks, tmp_path):
    supervised = crew(1, concurrency=2)
    run_ids = [f"publish_steps.before.1:park.{when}.1" for when in BOTH]
    for run_id in run_ids:
        crashing.bent.submit(run_id=run_id)
    supervised.until(lambda: all(get_status(run_id).steps for run_id in run_ids), "both have opened their await")
    (marks / "bent").touch()
    supervised.until(lambda: all(get_status(run_id).state == "suspended" for run_id in run_ids), "both are parked")
    (marks / "bent").unlink()

    supervised.until(lambda: ended(run_ids), "both have ended")

    for run_id in run_ids:
        assert_crashed(run_id, marks)
        assert crashing.bent.handle(run_id).result(timeout_s=1) == ["a", "b"]
        assert effects_of(tmp_path, run_id) == Counter(["a", "b"])
