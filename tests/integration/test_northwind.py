"""Real orders, far more than the stock can serve: whatever their order of running, the books must balance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT.parent / "shared" / "data"
ORDERS, PRODUCTS = DATA / "northwind_orders.jsonl", DATA / "northwind_products.jsonl"


@pytest.mark.data
@pytest.mark.skipif(not ORDERS.exists(), reason=f"needs the Northwind orders in {DATA.name}/ beside the checkout")
@pytest.mark.timeout(600)
def test_830_orders_end_three_times_in_a_row_with_all_invariants(tmp_path: Path) -> None:
    for number in range(3):
        env = {**os.environ, "CELERIAC_DATA_DIR": str(tmp_path / f"data {number}")}
        env.pop("REDIS_URL", None)
        env.pop("DATABASE_URL", None)
        demo = [sys.executable, "-m", "tasks.demo", "--orders", str(ORDERS), "--products", str(PRODUCTS), "--json"]

        ended = subprocess.run(demo, cwd=ROOT, env=env, capture_output=True, text=True, timeout=190, check=False)

        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        told = json.loads(ended.stdout.splitlines()[-1])
        assert told["orders"] == told["completed"] + told["refused"] + told["compensated"] == 830
        assert (told["stuck"], told["invariants"]) == (0, "hold")
        assert told["completed"] > 0
        assert told["refused"] > 0
