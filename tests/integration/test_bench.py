"""The bench measures: a turn of a few orders, end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FIGURES = {"orders_per_s", "p50_ms", "cpu_s_per_100", "redis_commands_per_order"}


def test_stock_orders_are_measured(tmp_path):
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "--quick", "--only", "stock", "--pairs", "1", "--orders", "5"]

    said = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )

    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    measured = json.loads(out.read_text())
    assert set(measured["w1"]["stock"]) >= FIGURES
    assert all(measured["w1"]["stock"][figure] > 0 for figure in FIGURES)


def test_wrong_amounts_are_refused():
    command = [sys.executable, "-m", "bench", "--orders", "0"]

    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)

    assert said.returncode == 2
    assert "must be from 1 to 100000, got 0" in said.stderr
