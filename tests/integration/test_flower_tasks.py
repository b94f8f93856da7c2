"""Stock Flower's own Tasks page, fed by a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from processes import client_of
from seeing import Flower
from waiting import wait_until

pytest.importorskip("flower")


@pytest.fixture
def seen(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client's side of tests/apps/seen.py."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import seen

    with client_of(seen.app, redis_url):
        yield seen


@pytest.fixture
def flower(seen: Any, worker: Any, worker_env: dict[str, str], tmp_path: Any) -> Iterator[Flower]:
    """A Flower, and a worker that it hears."""
    started = Flower("seen", folder=tmp_path, env=worker_env)
    started.launch()  # and while it starts, the worker does
    node = worker("seen", options=("--without-mingle", "--without-gossip"))
    started.wait(started.is_ready, "was not ready", 60)
    yield started
    started.kill()
    node.kill()


def ended(flower: Flower, run_id: str, state: str) -> dict[str, dict[str, Any]]:
    def look() -> dict[str, dict[str, Any]] | None:
        tasks = flower.tasks()
        return tasks if tasks.get(run_id, {}).get("state") == state else None

    found = wait_until(look, f"Flower shows {run_id} as {state}", 20)
    assert found is not None
    return found


def test_a_run_is_a_task_with_its_steps_turns_and_children_below_it_and_shows_no_secret(flower, seen):
    seen.order.submit("A-1", "4111 1111", run_id="order-7").result(timeout_s=30)

    tasks = ended(flower, "order-7", "SUCCESS")

    run = tasks["order-7"]
    assert (run["name"], run["parent_id"], run["root_id"]) == ("seen.order", None, "order-7")
    assert tasks["order-7-parcels"]["parent_id"] == "order-7"
    below = {task["name"] for task in tasks.values() if task["parent_id"] == "order-7"}
    assert below == {"seen.order turn", "seen.charge", "seen.parcels"}
    parcels = {task["name"] for task in tasks.values() if task["parent_id"] == "order-7-parcels"}
    assert parcels == {"seen.parcels turn", "seen.pack", "second"}
    metrics = flower.get("/metrics")[1]
    assert 'celeriac_run_duration_seconds_count{state="completed",workflow="seen.order"} 1.0' in metrics
    assert 'celeriac_step_retries_total{step="seen.charge"} 1.0' in metrics
    assert 'celeriac_queue_messages{queue="celery"} 0.0' in metrics
    # The pages of the run and of a step lead to each other.
    (charge,) = [uuid for uuid, task in tasks.items() if task["name"] == "seen.charge" and task["state"] == "SUCCESS"]
    assert 'href="/task/order-7"' in flower.get(f"/task/{charge}")[1]
    assert charge in flower.get("/task/order-7")[1]
    # Arguments and results are shown by name and without secrets.
    assert tasks["order-7"]["args"] == '(order_id="A-1", card_number=***)'
    (charge,) = [task for task in tasks.values() if task["name"] == "seen.charge" and task["state"] == "SUCCESS"]
    assert charge["args"] == '(order_id="A-1", card_number=***, options={"api_key":"***","tries":2})'
    pages = [flower.get(f"/task/{uuid}")[1] for uuid in tasks] + [flower.get("/api/tasks?limit=1000")[1]]
    assert [page for page in pages if "hunter2" in page or "4111" in page] == []


def test_a_run_shows_how_far_it_is_and_what_went_wrong(flower, seen):
    seen.asked.submit(run_id="order-9")
    handle = seen.undone.submit("A-1", run_id="order-8")
    handle.wait_for(lambda status: status.finished, timeout_s=30)

    task = ended(flower, "order-8", "FAILURE")["order-8"]

    assert task["exception"] == "compensated: TerminalError: no room, password=***"
    task = ended(flower, "order-9", "PROGRESS")["order-9"]

    assert task["result"] == "50% asking"
    seen.approval.resolve("order-9", True)
    assert ended(flower, "order-9", "SUCCESS")["order-9"]["result"] == "true"
