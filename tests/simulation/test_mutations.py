"""The simulation finds bugs: without any of the rules, some seed fails, and soon."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from random import Random

import pytest

from simulation import faults, plans
from simulation.mutations import MUTATIONS, Mutation
from simulation.watch import Violation
from simulation.world import World


def worlds(on, mutation: Mutation):
    """Worlds in which it may show."""
    for seed in count():
        random = Random(seed)
        plan = plans.draw(random)
        if mutation.wants(plan):
            profile = replace(faults.draw(random, mutation.kinds), **mutation.more)
            yield World(on, seed, plan=plan, profile=profile, patches=mutation.patches)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_without_a_rule_the_simulation_fails(on, mutation, monkeypatch):
    if mutation.python:
        monkeypatch.setattr(*mutation.python)

    for tried, world in enumerate(worlds(on, mutation), 1):
        try:
            world.play()
        except Violation as found:
            print(f"{mutation.name}: found in {tried} seeds: {found}")
            return
        assert tried < mutation.seeds, f"{tried} seeds, and nobody misses: {mutation.what}"
