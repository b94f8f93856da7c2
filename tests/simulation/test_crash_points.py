"""A crash point at a time: a process dies before and after each write, publish and read that it makes."""

from __future__ import annotations

import pytest

from canvas import wide
from simulation.faults import Profile
from simulation.plans import Join, Plan
from simulation.watch import Violation
from simulation.world import World

NONE = [False, False]
PLANS = {
    "steps": Plan([Join("await", [True], [1], [False]), Join("fan_out_fail", [True, True], [0, 0], NONE)]),
    "race with an undo, then a rollback": Plan(
        [Join("race", [True, True], [0, 0], NONE, undone=True), Join("await", [False], [0], [False], fatal=True)],
        strategy="compensate_all",
        covered=2,
    ),
    "a cancel": Plan(
        [Join("fan_out", [True, True], [0, 0], NONE, undone=True), Join("await", [True], [0], [False], undone=True)],
        catches=False,
        strategy="compensate_completed",
        covered=2,
        cancels_ms=(150,),
    ),
    "timers": Plan(
        [
            Join("sleep", [True], [0], [False], delay_s=0.3),
            Join("race", [True, True], [0, 0], [False, True], delay_s=0.3, within_s=[0.5, 0.0]),
        ],
        deadline_s=6.0,
    ),
    "many calls of one step": Plan(
        [
            Join("fan_out", [True, True, False, True, True, True], [0, 0, 0, 1, 0, 0], [False] * 6, steps=["do"] * 6),
            Join("quorum", [True] * 5, [0] * 5, [False] * 5, steps=["once"] * 5, need=3),
        ],
    ),
    "messages and rounds": Plan(
        [
            Join("fan_out", [True, True], [0, 0], NONE, steps=["receive", "receive"]),
            Join("race", [True, True], [0, 0], NONE, steps=["receive", "do"]),
            Join("await", [True], [0], [False], steps=["receive"]),
        ],
        rounds=(1, 3),
    ),
}


@pytest.mark.parametrize("whole_host", [0.0, 1.0], ids=["a child dies", "a host dies"])
@pytest.mark.parametrize("name", PLANS)
def test_killed_at_each_write_and_publish(on, name, whole_host):
    point, reached = 0, True
    while reached:
        profile = Profile(until_ms=10**6, kill_at=point, whole_host=whole_host)
        world = World(on, 1, plan=PLANS[name], profile=profile)
        wide.LEAST, wide.WINDOW, wide.CHUNK = 4, 2, 2
        try:
            world.play()
        except Violation as broken:
            pytest.fail(f"killed at point {point}: {broken}\n{world.trace}")
        reached, point = world.faults.boundaries > point, point + 1

    assert point > 20, "the plan has its writes"
