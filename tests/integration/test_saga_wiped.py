"""Redis is wiped under real workers; an operator finds what is owed and has it undone, with the command line alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis

from waiting import wait_until

SUBMIT = "import flow; flow.cancelled_in_saga.submit(run_id='r')"


def test_what_a_wiped_redis_owes_is_undone_by_real_workers(
    worker: Any, worker_env: dict[str, str], redis_client: redis.Redis, tmp_path: Path
) -> None:
    env = {**os.environ, **worker_env}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def saga(*words: str) -> Any:
        return json.loads(run("-m", "celery", "-A", "flow", "runs", "saga", *words, "--json"))

    worker("flow", concurrency=2, options=("--without-mingle", "--without-gossip"))
    run("-c", SUBMIT)
    wait_until(lambda: redis_client.lrange("notes", 0, -1) == ["a"], "the first step is done", 30)
    wait_until(lambda: saga("show", "r")["entries"][0]["state"] == "done", "the log has its outcome", 30, every_s=0.2)

    redis_client.flushall()

    (owed,) = saga("list", "--open")["sagas"]
    assert (owed["run_id"], owed["owed"], owed["run_state"]) == ("r", ["a"], None)
    (resumed,) = saga("resume", "--all-open", "--yes", "--wait")["resumed"]
    assert (resumed["by"], resumed["error"]) == ("r:resume", None)
    assert redis_client.lrange("notes", 0, -1) == ["undo a"]
    assert saga("list", "--open")["sagas"] == []
