"""What a run is to do: awaits of every kind, drawn at random and small enough that thousands take a minute."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

#: How `.after` is written for a part that is delayed.
DELAY_S = 60.0


@dataclass
class Join:
    """One await.

    Attributes:
        kind: await, fan_out_fail, fan_out, race, quorum, sleep, batch (ends with its first failure) or settled (a batch
            that gives every outcome).
        good: Whether each part succeeds in the end.
        flaky: How many attempts of it fail before.
        delayed: Whether it starts `delay_s` later.
        steps: What a part is: do, brisk (may be terminated), once (not idempotent), limited (2 s each), promise or
            receive.
        within_s: Time limits of parts, 0: none.
        timeout_s: Of the whole await, 0: none.
        fatal: The workflow lets its error through.
        undone: In the saga: each part has an undo.
        window: How many items of a batch run at once.
    """

    kind: str
    good: list[bool]
    flaky: list[int]
    delayed: list[bool]
    need: int = 1
    delay_s: float = DELAY_S
    steps: list[str] = field(default_factory=list)
    within_s: list[float] = field(default_factory=list)
    timeout_s: float = 0.0
    fatal: bool = False
    undone: bool = False
    window: int = 0

    def step(self, p: int) -> str:
        return self.steps[p] if self.steps else "do"


@dataclass
class Plan:
    """One run.

    Attributes:
        catches: The workflow catches a cancel and goes on.
        strategy: Of its saga; '': it has none.
        covered: How many of its awaits are in the saga.
        raises: The saga's block ends with an error of its own.
        bad_undos: Parts `n.p` whose undo always fails.
        deadline_s: Of the run, 0: none.
        cancels_ms: When somebody cancels it.
        rounds: The awaits before which it begins anew.
    """

    joins: list[Join]
    catches: bool = True
    strategy: str = ""
    covered: int = 0
    raises: bool = False
    bad_undos: tuple[str, ...] = ()
    deadline_s: float = 0.0
    cancels_ms: tuple[int, ...] = ()
    rounds: tuple[int, ...] = ()

    @property
    def receives(self) -> bool:
        """Whether anything of it waits for messages."""
        return any("receive" in join.steps for join in self.joins)


def value(n: int, p: int) -> int:
    """What part p of await n gives, if it is given no basis."""
    return 100 * n + p


def message(n: int, p: int) -> str:
    """What it says when it fails."""
    return f"{n}.{p} failed"


def basis_of(said: list[Any]) -> int:
    """A number that goes into all that comes after: a step of another life of the run would show."""
    return 10_000 * (sum(map(ord, repr(said))) % 1000) if said else 0


def draw(random: Random) -> Plan:
    """A random plan."""
    saga = random.random() < 0.4
    joins = [_join(random, saga=saga) for _ in range(random.randint(1, 4))]
    plan = Plan(joins, catches=random.random() < 0.5)
    if saga:
        plan.strategy = random.choice(["compensate_all", "compensate_completed", "best_effort"])
        plan.covered = random.randint(1, len(joins))
        plan.raises = random.random() < 0.5
        places = [f"{n}.{p}" for n, join in enumerate(joins) for p in range(len(join.good))]
        plan.bad_undos = tuple(place for place in places if random.random() < 0.05)
        for join in joins[: plan.covered]:
            join.undone = random.random() < 0.8
            join.fatal = random.random() < 0.4
    for join in joins:
        _make_batch(join)
        _make_uniform(join)
        if not saga:
            _make_receives(join)
    if random.random() < 0.15:
        plan.deadline_s = random.choice([0.5, 2.0, 6.0])
    if random.random() < 0.25:
        plan.cancels_ms = tuple(random.randint(1, 6000) for _ in range(random.choice([1, 1, 2])))
    _make_rounds(plan)
    return plan


def draw_brief(random: Random) -> Plan:
    """A random plan of the kind that a turn goes through ahead of the journal: short steps, most of which succeed."""
    joins = []
    for _ in range(random.randint(2, 7)):
        kind = random.choice(["await", "await", "fan_out_fail", "fan_out"])
        size = 1 if kind == "await" else random.randint(1, 3)
        joins.append(
            Join(
                kind,
                good=[random.random() < 0.93 for _ in range(size)],
                flaky=[random.choice([0] * 12 + [1, 2]) for _ in range(size)],
                delayed=[False] * size,
                steps=[random.choice(["do"] * 8 + ["limited", "limited", "once", "brisk"]) for _ in range(size)],
                within_s=[0.0] * size,
            )
        )
    plan = Plan(joins, catches=random.random() < 0.5)
    if random.random() < 0.3:
        plan.cancels_ms = tuple(random.randint(1, 3000) for _ in range(random.choice([1, 1, 2])))
    if random.random() < 0.1:
        plan.deadline_s = random.choice([0.5, 2.0])
    _make_rounds(plan)
    return plan


def _make_rounds(plan: Plan) -> None:
    """Let some plans begin anew, not inside the saga."""
    random = Random(f"rounds {plan}")
    if random.random() < 0.3:
        plan.rounds = tuple(n for n in range(max(plan.covered, 1), len(plan.joins) + 1) if random.random() < 0.5)


def _make_receives(join: Join) -> None:
    """Let parts of some joins wait for a message."""
    random, size = Random(f"receives {join}"), len(join.good)
    if join.kind in {"sleep", "batch", "settled"} or random.random() > 0.3:
        return
    for p in random.sample(range(size), random.randint(1, size)):
        join.steps[p], join.flaky[p], join.delayed[p], join.good[p] = "receive", 0, False, True


def _make_batch(join: Join) -> None:
    """Of some joins of steps a batch, larger than they were."""
    # By what was drawn, and not by the next numbers: else each plan of all that were known before would be another.
    random = Random(repr(join))
    steps_only = not {"promise", "receive"} & set(join.steps)
    plain = steps_only and not any(join.delayed) and not any(join.within_s) and not join.undone
    if join.kind not in {"fan_out_fail", "fan_out"} or not plain or random.random() < 0.5:
        return
    more = random.randint(0, 4)
    join.kind = {"fan_out_fail": "batch", "fan_out": "settled"}[join.kind]
    join.good += [random.random() < 0.9 for _ in range(more)]
    join.flaky += [random.choice([0, 0, 1]) for _ in range(more)]
    size = len(join.good)
    join.delayed, join.within_s, join.steps = [False] * size, [0.0] * size, [join.steps[0]] * size
    join.window = random.randint(1, max(1, size - 1))


def _make_uniform(join: Join) -> None:
    """Of some joins one of many calls that differ by their arguments alone; some worlds file them as a batch."""
    random = Random(f"uniform {join}")
    plain = not any(join.delayed) and not any(join.within_s) and not join.undone
    if join.kind not in {"fan_out_fail", "fan_out", "quorum"} or not plain or random.random() < 0.3:
        return
    if {"promise", "receive"} & set(join.steps):
        return
    more = random.randint(1, 7)
    join.good += [random.random() < 0.9 for _ in range(more)]
    join.flaky += [random.choice([0, 0, 0, 1]) for _ in range(more)]
    size = len(join.good)
    join.delayed, join.within_s, join.steps = [False] * size, [0.0] * size, [join.steps[0]] * size
    if join.kind == "quorum":
        join.need = random.randint(1, size)


def _join(random: Random, *, saga: bool) -> Join:
    kind = random.choice(["await", "fan_out_fail", "fan_out", "race", "quorum", *([] if saga else ["sleep"])])
    size = 1 if kind in {"await", "sleep"} else random.randint(1, 3)
    flaws = random.random() < 0.5
    join = Join(
        kind,
        good=[random.random() < 0.75 for _ in range(size)],
        flaky=[random.choice([0, 1, 2]) if flaws and random.random() < 0.4 else 0 for _ in range(size)],
        delayed=[random.random() < 0.5 for _ in range(size)] if random.random() < 0.2 else [False] * size,
        need=random.randint(1, size),
        delay_s=random.choice([0.3, 2.0]),
        steps=[random.choice(["do", "do", "do", "brisk", "once", "limited"]) for _ in range(size)],
        within_s=[random.choice([0.5, 3.0]) if random.random() < 0.1 else 0.0 for _ in range(size)],
        timeout_s=random.choice([0.5, 3.0]) if random.random() < 0.1 else 0.0,
    )
    if not saga and kind != "sleep" and random.random() < 0.2:
        p = random.randrange(size)  # one that the outside world completes
        join.steps[p], join.flaky[p], join.delayed[p], join.within_s[p] = "promise", 0, False, 0.0
    return join
