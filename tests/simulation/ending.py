"""The end of a world: it comes to rest, and what it gave is what the reference says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from leaks import keys_without_end
from simulation.reference import Mismatch, NotYet, Reference
from simulation.watch import Violation

if TYPE_CHECKING:
    from simulation.world import World


def left(world: World) -> list[str]:
    """What is still due, and joins that are still there."""
    keys, ask = world.store.keys, world.ground.redis
    due, timers = ask.zrange(keys.due(0), 0, -1), ask.zrange(keys.timers(0), 0, -1)
    return [*due, *timers, *ask.keys(keys.join(world.run_id, 0)[:-1] + "*")]


def calm_down(world: World) -> None:
    """No more faults; what still runs ends, what is still due is looked at.

    Raises:
        Violation: It does not come to rest.
    """
    world.profile.until_ms = world.profile.kill_at = -1
    end_ms = world.ms + world.patience_ms
    while world.watch.running or left(world):
        if world.ms > end_ms:
            raise Violation(f"left over after the end: {left(world)}")
        world.run_until(world.ms + 1000)


def check(world: World) -> None:
    """What the reference says of what was recorded is what the run gave.

    Raises:
        Violation: It is not, or something is left.
    """
    fields = world.ground.redis.hgetall(world.store.keys.run(world.run_id))
    seen = world.watch.seen
    reference = Reference(world.plan, seen.log, opens=True, based=True, settled=seen.decided)
    try:
        state = reference.state()
    except (NotYet, Mismatch) as error:
        raise Violation(f"the reference does not end as the run did: {error!r}, {seen.log}") from error
    got = (fields["state"], json.loads(fields["result"]) if state == "completed" else [])
    if got != (state, reference.said if state == "completed" else []):
        raise Violation(f"the run gave {got}, the reference {state} {reference.said}: {seen.log}")
    decided_at = [length - 1 for _, length in sorted(seen.decided.items())]
    if decided_at != reference.decided_at:
        raise Violation(f"decided at {decided_at}, the reference at {reference.decided_at}: {seen.log}")
    steps = world.ground.redis.hgetall(world.store.keys.steps(world.run_id))
    parts = {place: steps.get(f"{place}:s", "waiting").partition("|")[0] for place in steps if ":" not in place}
    if going_on := {place: state for place, state in parts.items() if state not in ("done", "failed", "stopped")}:
        raise Violation(f"the timeline of the run that has ended shows {going_on}")
    if int(fields.get("loose") or 0):
        raise Violation(f"{fields['loose']} claims are still counted")
    if without_end := keys_without_end(world.ground.redis):
        raise Violation(f"keys without an end: {without_end}")
    world.saga.check(reference)
