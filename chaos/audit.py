"""What a run under faults has come to, from what its bodies and its database say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.books import Entry, begun, recorded
from chaos.recovery import Hands, recovery
from chaos.stage import Ending


@dataclass(frozen=True)
class Verdict:
    """The figures of one run.

    Attributes:
        runs: Orders that were to be submitted.
        completed: Orders that ended `completed`, each effect of theirs there and the customer charged once.
        stuck: Orders whose submission was confirmed and that had not ended when the wait was over.
        wrong: Orders that ended in another way, or whose effects are not what they must be; with the reason.
        bodies_twice: Bodies that began for a step that had begun before.
        effects_twice: Effects recorded for a step that had one.
        worst_recovery_s: See `recovery`; from the last fault that hit the order.
        worst_at: The order and the fault of the worst recovery.
        from_first_s: The same from the first fault, whatever else came before the order got on.
        faults: How many of each kind.
    """

    runs: int
    completed: int
    stuck: int
    wrong: tuple[str, ...]
    bodies_twice: int
    effects_twice: int
    worst_recovery_s: float
    worst_at: str
    from_first_s: float
    faults: dict[str, int]
    took_s: float


def audit(side: str, orders: int, folder: Path, ending: Ending) -> Verdict:
    bodies, effects = begun(folder), recorded(folder / "chaos.db")
    by_order: dict[str, list[Entry]] = defaultdict(list)
    for effect in effects:
        by_order[effect.run_id].append(effect)
    wrong = {
        order_id: why
        for order_id, (state, _) in ending.ended.items()
        if (why := _wrong(side, state, by_order[order_id])) is not None
    }
    worst_s, worst_at = recovery(ending, effects, Hands(folder))
    from_first_s, _ = recovery(ending, effects, None)
    return Verdict(
        runs=orders,
        completed=len(ending.ended) - len(wrong),
        stuck=len(ending.confirmed.keys() - ending.ended.keys()),
        wrong=tuple(f"{order_id}: {why}" for order_id, why in sorted(wrong.items())),
        bodies_twice=_repeated(bodies),
        effects_twice=_repeated(effects),
        worst_recovery_s=round(worst_s, 2),
        worst_at=worst_at,
        from_first_s=round(from_first_s, 2),
        faults=dict(Counter(one.fault.kind for one in ending.happened)),
        took_s=round(ending.took_s, 1),
    )


def _repeated(entries: Sequence[Entry]) -> int:
    return sum(times - 1 for times in Counter(one.step for one in entries).values())


#: The tasks of an order that must each have had its effect; one of two providers is charged.
STEPS = (
    "check_inventory", "check_payment", "check_shipping", "check_fraud", "reserve_inventory", "reserve_shipping",
    "capture", "pick", "label", "invoice", "send_email", "send_sms", "send_push",
)  # fmt: skip
CHARGES = ("charge", "charge_stripe", "charge_paypal")


def _wrong(side: str, state: str, effects: Sequence[Entry]) -> str | None:
    if state != "completed":
        return f"it is {state}"
    count = Counter(effect.task.partition(".")[2] for effect in effects)
    missing = [step for step in STEPS if not count[step]]
    if missing:
        return f"no effect of {', '.join(missing)}"
    charged = sum(count[name] for name in CHARGES) - count["refund"]
    if side != "stock" and charged != 1:
        return f"charged {charged} times"
    return None
