"""What is owed under real workers: an operator finds it and has it undone, or not, with the command line alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from waiting import wait_until


@pytest.fixture
def shell(worker: Any, worker_env: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """A worker, and commands of its app as a shell runs them; gives what they say, read as JSON if it is."""
    env = {**os.environ, **worker_env}
    worker("flow", concurrency=2, options=("--without-mingle", "--without-gossip"))

    def run(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, *words], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout

    return run


@pytest.fixture
def saga(shell: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *words: shell("-m", "celery", "-A", "flow", "runs", "saga", *words, "--json")


def test_what_a_wiped_redis_owes_is_undone_by_real_workers(shell: Any, saga: Any, redis_client: redis.Redis) -> None:
    shell("-c", "import flow; flow.cancelled_in_saga.submit(run_id='r')")
    wait_until(lambda: redis_client.lrange("notes", 0, -1) == ["a"], "the first step is done", 30)
    wait_until(lambda: saga("show", "r")["entries"][0]["state"] == "done", "the log has its outcome", 30, every_s=0.2)

    redis_client.flushall()

    (owed,) = saga("list", "--open")["sagas"]
    assert (owed["run_id"], owed["owed"], owed["run_state"]) == ("r", ["a"], None)
    (resumed,) = saga("resume", "--all-open", "--yes", "--wait")["resumed"]
    assert (resumed["by"], resumed["error"]) == ("r:resume", None)
    assert redis_client.lrange("notes", 0, -1) == ["undo a"]
    assert saga("list", "--open")["sagas"] == []


def test_an_undo_that_gave_up_is_settled_by_hand_and_the_rest_undone(
    shell: Any, saga: Any, redis_client: redis.Redis
) -> None:
    shell("-c", "import flow; flow.gives_up.submit(run_id='r')")

    def show() -> Any:
        return shell("-m", "celery", "-A", "flow", "runs", "show", "r", "--json")

    wait_until(lambda: show()["state"] == "compensation_failed", "the undo of b has given up", 30, every_s=0.2)
    redis_client.set("bank", "open", ex=600)

    told = saga("skip", "r", "b", "--reason", "by hand", "--by", "ada", "--wait")

    assert (told["by"], told["error"], told["run_state"]) == ("r:resume", None, "compensated")
    assert redis_client.lrange("notes", 0, -1) == ["a", "b", "undo a"]
    assert [entry["state"] for entry in saga("show", "r")["entries"]] == ["undone", "skipped"]
    shown = show()
    assert shown["error"]["message"] == "sold out"
    (noted,) = [event for event in shown["history"] if event["kind"] == "operator.skip"]
    assert noted["detail"] == {"by": "ada", "reason": "by hand", "run": "r:resume"}
