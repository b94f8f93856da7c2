"""How soon an order goes on after a fault, from the effects in SQL and the logs of the workers."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from chaos.books import Entry
from chaos.stage import Ending, Happened

#: In a worker's log: when, a message's id, and what came of it.
_LINE = re.compile(
    r"^\[([\d-]+ [\d:]+),(\d+): .*?Task \S+?\[([^/\]]+)[^\]]*\] (received|succeeded|ignored|failed|retry)"
)
#: These take something from every order that is open.
_ALL = frozenset({"valkey", "cut"})

Worst = tuple[float, str]


class Hands:
    """Which worker had messages of which orders in its hands, and when."""

    def __init__(self, folder: Path) -> None:
        self._spans: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        for log in folder.glob("worker-*.log"):
            self._read(log)

    def _read(self, log: Path) -> None:
        came: dict[str, list[int]] = defaultdict(list)
        for line in log.read_text(errors="replace").splitlines():
            found = _LINE.match(line)
            if found is None:
                continue
            second, ms, order_id, what = found.groups()
            at_ms = round(datetime.strptime(second, "%Y-%m-%d %H:%M:%S").timestamp() * 1000) + int(ms)  # noqa: DTZ007
            if what == "received":
                came[order_id].append(at_ms)
            elif came[order_id]:
                self._spans[log.stem, order_id].append((came[order_id].pop(0), at_ms))
        for order_id, left in came.items():  # it was never said what came of these
            self._spans[log.stem, order_id] += [(at_ms, at_ms + 3_600_000) for at_ms in left]

    def hit(self, one: Happened, order_id: str) -> bool:
        """Whether a fault took something from an order: its message lay there, or Redis itself went."""
        if one.fault.kind in _ALL:
            return True
        return any(begin <= one.at_ms <= end for begin, end in self._spans[one.whom.split()[0], order_id])


def recovery(ending: Ending, effects: Sequence[Entry], hands: Hands | None) -> Worst:
    """The longest time, over all faults and all orders open at them, until something of the order was done.

    Done means: the next effect of the order is recorded in SQL, or it has ended; a body that begins and dies again is
    no recovery. With `hands` the clock starts anew at a later fault that is known to have hit the same order before it
    got so far; without, what several faults take counts from the first.
    """
    worst: Worst = (0.0, "")
    signs: dict[str, list[int]] = defaultdict(list)
    for effect in effects:
        signs[effect.run_id].append(effect.at_ms)
    for order_id, (_, ended_ms) in ending.ended.items():
        after = sorted([*signs[order_id], ended_ms])
        gaps: dict[int, list[Happened]] = defaultdict(list)
        for one in ending.happened:
            if ending.confirmed.get(order_id, ended_ms) <= one.at_ms < ended_ms:
                gaps[after[bisect_right(after, one.at_ms)]].append(one)
        for sign_ms, faults in gaps.items():
            hits = [one for one in faults if hands is not None and hands.hit(one, order_id)]
            since = hits[-1] if hits else faults[0]
            what = f"{order_id} after {since.fault.kind} ({since.whom}) at {since.fault.at_s:.1f} s"
            worst = max(worst, ((sign_ms - since.at_ms) / 1000, what))
    return worst
