"""The simulation finds bugs: without any of the rules, some seed fails, and soon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from random import Random

import pytest

from simulation import faults, plans
from simulation.ground import Ground
from simulation.mutations import MUTATIONS, Mutation
from simulation.redis_side import Patches, source
from simulation.watch import Violation
from simulation.world import World

# Bounded by their seeds; how long those take is the machine's.
pytestmark = pytest.mark.timeout(900)


def world(on: Ground, mutation: Mutation, seed: int, patches: Patches) -> World:
    """A world in which it may show."""
    random = Random(seed)
    plan = plans.draw(random)
    profile = replace(faults.draw(random, mutation.kinds), **mutation.more)
    return World(on, seed, plan=plan, profile=profile, patches=patches)


def seeds_of(mutation: Mutation) -> Iterator[int]:
    return (seed for seed in count() if mutation.wants(plans.draw(Random(seed))))


def first_violation(on: Ground, mutation: Mutation) -> int:
    """The first seed that fails under it."""
    for tried, seed in enumerate(seeds_of(mutation), 1):
        try:
            world(on, mutation, seed, mutation.patches).play()
        except (Violation, KeyError) as found:  # a batch that was decided too soon lacks an outcome
            print(f"{mutation.name}: found in {tried} seeds: {found}")
            return seed
        assert tried < mutation.seeds, f"{tried} seeds, and nobody misses: {mutation.what}"
    raise AssertionError


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "_"))
def test_without_a_rule_the_simulation_fails(on, mutation, monkeypatch):
    for script, _, _ in mutation.patches:
        source("finish" if script == "_join" else script, mutation.patches)  # raises if the line is not there

    with monkeypatch.context() as broken:
        if mutation.python:
            broken.setattr(*mutation.python)
        seed = first_violation(on, mutation)

    world(on, mutation, seed, ()).play()  # with the rule it ends well
