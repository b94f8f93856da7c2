"""The embedded server ends with the process that started it; the others must not end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.children import Worker
from waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
SUBMIT = "import sys; from homebody import dine; dine.s('soup').submit(run_id=sys.argv[1]).result(timeout_s=40)"


@pytest.mark.timeout(150)
def test_a_worker_revives_the_embedded_server_that_a_client_had_started(tmp_path: Path) -> None:
    apart = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "apps")])
    env = {**apart, "CELERIAC_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": path}
    # The client comes first, so the server is its child; it waits for a worker, and takes the server with it.
    client = subprocess.Popen([sys.executable, "-c", SUBMIT, "first"], env=env)
    worker = Worker("homebody", log=tmp_path / "worker.log", env=env, pool="solo")
    try:
        port = tmp_path / "data" / "valkey" / "server.port"
        wait_until(port.exists, "the client starts the embedded server", timeout_s=20)
        worker.start()
        assert client.wait(timeout=60) == 0

        second = subprocess.run([sys.executable, "-c", SUBMIT, "second"], env=env, timeout=60, check=False)

        assert second.returncode == 0, worker.output()[-3000:]
    finally:
        worker.stop()
        client.kill()
        client.wait()
