"""`make demo` without make: the sample, the bad inputs, and what is left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from status.embedded import remembered_port
from tasks.demo import main
from waiting import wait_until

ROOT = Path(__file__).parents[2]


def begin(tmp_path: Path, *args: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.demo", *args],
        cwd=ROOT,
        env={**clean, "CELERIAC_DATA_DIR": str(tmp_path), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.timeout(240)
def test_the_sample_goes_its_ways_and_leaves_nothing(tmp_path):
    demo = begin(tmp_path, "--json")

    # Longer than the demo itself waits for orders: then it says which of them are stuck.
    stdout, stderr = demo.communicate(timeout=180)

    assert demo.returncode == 0, stderr
    (counts,) = [json.loads(line) for line in stdout.splitlines()]
    assert list(counts) == ["orders", "completed", "refused", "compensated", "stuck", "orders_per_s", "invariants"]
    assert (counts["orders"], counts["completed"], counts["stuck"], counts["invariants"]) == (30, 17, 0, "hold")
    # Two orders want the last unit: who comes late is refused by the check, or undone if it passed that.
    assert (counts["refused"], counts["compensated"]) in {(5, 8), (6, 7)}
    for path in ("paid by stripe", "paid by paypal", "notification.send_email failed", "(fraud.check)"):
        assert path in stderr
    assert "undone: charge" in stderr
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["demo.lock"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "orders.jsonl:1: is not JSON"),
        (None, "orders.jsonl: can't be read (No such file or directory)"),
        ('"sku": "NO-SUCH"', "names the SKU 'NO-SUCH'"),
        ('"quantity": -1', "orders.jsonl:1: items.0.quantity: Input should be greater than 0, got -1"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(tmp_path, monkeypatch, line, said):
    monkeypatch.setenv("CELERIAC_DATA_DIR", str(tmp_path))
    orders = tmp_path / "orders.jsonl"
    if line is not None:
        sample = json.loads((ROOT / "tasks" / "data" / "orders.jsonl").read_text().splitlines()[0])
        if line.startswith('"'):
            sample["items"][0] |= json.loads(f"{{{line}}}")
        orders.write_text(line if line.startswith("{") else json.dumps(sample))

    result = CliRunner().invoke(main, ["--orders", str(orders)])

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not (tmp_path / "demo").exists()


def test_a_demo_that_is_interrupted_ends_all_it_has_started(tmp_path):
    demo = begin(tmp_path)
    log = tmp_path / "demo" / "workers.log"
    wait_until(lambda: log.exists() and log.read_text().count("ready.") == 2, "the workers are ready", timeout_s=60)
    family = psutil.Process(demo.pid).children(recursive=True)
    assert remembered_port(tmp_path / "demo" / "valkey")

    demo.send_signal(signal.SIGINT)
    _, stderr = demo.communicate(timeout=40)

    assert demo.returncode == 130
    assert "everything that was started is ended" in stderr
    assert len(family) >= 4  # Valkey, the guard and two workers
    assert [process for process in family if process.is_running()] == []
