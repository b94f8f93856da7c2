"""Thousands of worlds in which everything goes wrong: each run ends, and as the reference says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.world import World

ROOT = Path(__file__).parent.parent.parent
#: How many seeds; with SIM_SECONDS as many as that time allows.
SEEDS = int(os.environ.get("SIM_SEEDS", "2000"))
SECONDS = float(os.environ.get("SIM_SECONDS", "0"))
FIRST = int(os.environ.get("SIM_FROM", "0"))
SIDE_BY_SIDE = 2


@pytest.mark.timeout(max(600, 2 * SECONDS + SEEDS // 5))
def test_every_run_ends_as_the_order_of_its_outcomes_says(simulation_server):
    command = [
        sys.executable,
        "-m",
        "simulation.run",
        "--socket",
        simulation_server.socket,
        "--every",
        str(SIDE_BY_SIDE),
    ]
    each = SEEDS // SIDE_BY_SIDE if not SECONDS else 10**9
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    players = [
        subprocess.Popen(
            [*command, "--seed", str(FIRST + i), "--count", str(each), "--seconds", str(SECONDS), "--db", str(i)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(SIDE_BY_SIDE)
    ]
    said = [player.communicate()[0] for player in players]
    print(*said)

    assert [player.returncode for player in players] == [0] * SIDE_BY_SIDE, "\n".join(said)


@pytest.mark.parametrize("seed", [1, 23, 98, 137])
def test_a_seed_is_the_same_world_each_time(on, seed):
    first = World(on, seed)
    first.play()
    again = World(on, seed)
    again.play()

    assert again.trace == first.trace
    assert (again.plan, again.profile) == (first.plan, first.profile)
