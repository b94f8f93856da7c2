"""What happens when, as a seed decides it: the same seed gives the same faults at the same times."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

#: A worker's parent is killed this often.
KILL_EVERY_S = 2.0
#: Longer than a claim lives without its worker's heartbeat (four ticks, of which one has begun).
STOPPED_S = 6.0


@dataclass(frozen=True, order=True)
class Fault:
    """One fault.

    Attributes:
        at_s: Since the first order.
        kind: parent, group, child, client, stop, valkey or cut.
        choice: From 0 to 1: which of those that it may happen to.
    """

    at_s: float
    kind: str
    choice: float


def plan(seed: int, length_s: float) -> list[Fault]:
    """All faults of a run that takes about `length_s` seconds, in their order.

    Those that come again and again go on for longer, in case that it takes longer.
    """
    random = Random(seed)  # noqa: S311  # to repeat it, not to hide it
    found: list[Fault] = []

    def add(at_s: float, kind: str) -> None:
        found.append(Fault(round(at_s, 3), kind, random.random()))

    long_s = 4 * length_s
    at_s = KILL_EVERY_S
    while at_s < long_s:
        # Its children outlive a parent for a moment; with its whole group, as when a container is killed, they don't.
        add(at_s, random.choice(["parent", "group"]))
        at_s += KILL_EVERY_S
    for every_s, kind in ((2.9, "child"), (7.3, "cut")):
        at_s = random.uniform(0.5, every_s)
        while at_s < long_s:
            add(at_s, kind)
            at_s += every_s * random.uniform(0.7, 1.3)
    # Once in each part of the time: they must not all come at once.
    for kind, times in (("client", 3), ("stop", 3), ("valkey", 2)):
        for number in range(times):
            add(length_s * (number + random.uniform(0.15, 0.85)) / times, kind)
    return sorted(found)
