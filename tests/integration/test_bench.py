"""The bench measures: each workload once, as small as it gets, end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from bench import copies
from leaks import keys_without_end
from runs import Runs, part
from status.reading import Reader

ROOT = Path(__file__).parent.parent.parent
#: Seconds for one command: nothing but starting workers, which a busy machine may take its time for.
WAIT_S = 280
#: The figure that `ratio` compares.
LEADS = {"w2": "s_1000", "w3": "s_2000", "w4": "p50_ms", "w5": "orders_per_s"}
pytestmark = pytest.mark.timeout(WAIT_S + 20)


def bench(*options: str, module: str = "bench") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)


def measured(out: Path, *options: str) -> dict[str, Any]:
    said = bench("--size", "tiny", *options, "--out", str(out))

    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_orders_are_measured_beside_stock_in_the_same_workers_and_alone(tmp_path):
    w1 = measured(tmp_path / "out.json", "--only", "w1")["w1"]

    assert {
        "stock",
        "ours",
        "ours_saga",
        "ours_local",
        "stock_alone",
        "ratio",
        "latency_ratio",
        "saga_ratio",
        "local_ratio",
        "alone_ratio",
    } < set(w1)
    assert all(value > 0 for value in w1["ours"].values())
    assert set(w1["ours"]) == set(w1["stock"]) == set(w1["stock_alone"])
    assert w1["ratio"] == round(w1["ours"]["orders_per_s"] / w1["stock"]["orders_per_s"], 3)


def test_the_other_workloads_are_measured_beside_stock(tmp_path):
    found = measured(tmp_path / "out.json", "--only", ",".join(LEADS), "--sides", "stock,ours")

    for name, lead in LEADS.items():
        assert found[name]["measured"]["ratio_of"] == lead
        assert found[name]["ratio"] == found[name]["ratios"]["ours"][lead] > 0
    assert 0 < found["w3"]["ours"]["peak_bodies"] <= found["w3"]["measured"]["window"]
    assert 0 < found["w3"]["ours"]["peak_claims"] <= found["w3"]["measured"]["window"]
    assert found["w5"]["ours"]["undone_per_order"] == 1


def test_no_order_is_lost_with_a_killed_worker_and_other_workloads_stay_in_the_file(tmp_path):
    out = tmp_path / "out.json"
    out.write_text('{"w9": {"ratio": 1}}')

    found = measured(out, "--only", "w6", "--sides", "ours")

    assert found["w6"]["ours"]["lost"] == 0
    assert 0 < found["w6"]["ours"]["open_at_kill"] < found["w6"]["measured"]["orders"]
    assert found["w9"] == {"ratio": 1}


def test_where_the_time_goes_is_told(tmp_path):
    said = bench("--profile", "--size", "tiny", "--orders", "20")

    assert said.returncode == 0, said.stderr
    assert "its pool processes" in said.stdout
    assert "canvas/turn.py:take_turn" in said.stdout


def test_growth_is_measured(tmp_path):
    out = tmp_path / "growth.json"
    few = "--runs 60 --workers 1 --orders 3 --singles 2 --turns 1 --weighed 5"

    said = bench(*few.split(), "--out", str(out), module="bench.growth")

    assert said.returncode == 0, said.stderr
    found = json.loads(out.read_text())
    assert found["by_runs"]["60"]["orders_per_s"] > 0
    assert found["ratio_runs"] == 1
    assert found["by_workers"]["1"]["orders_per_s"] > 0
    finished, running, sleeping = found["bytes_per_run"].values()
    assert 500 < sleeping < min(finished, running)
    assert out.with_suffix(".png").stat().st_size > 5000


def test_a_copied_run_is_what_its_original_is(redis_client, redis_url):
    original = Runs(redis_client).started(part())
    original.begin()
    original.done()
    original.complete(seen="n0")
    with redis.Redis.from_url(redis_url) as client:
        copies.write(client, original.keys, [copies.read(client, original.keys, original.id)], ["copy-0", "copy-1"])

    reader = Reader(redis_client, original.keys)
    assert {run.run_id for run in reader.page().runs} == {original.id, "copy-0", "copy-1"}
    copy, real = reader.status("copy-1"), reader.status(original.id)
    assert [replace(step, step_id="") for step in copy.steps] == [replace(step, step_id="") for step in real.steps]
    assert replace(copy, run_id=real.run_id, steps=real.steps) == real
    assert len(reader.history("copy-1")) == len(reader.history(original.id))
    assert keys_without_end(redis_client) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--orders", "0"], "must be from 1 to 100000, got 0"),
        (["--only", "w1,w8"], "w8: there are w1"),
        (["--sides", "theirs"], "theirs: there are ours"),
    ],
)
def test_wrong_options_are_refused(options, complaint):
    said = bench(*options)

    assert said.returncode == 2
    assert complaint in said.stderr
