"""W2: fan-out and fan-in of no-ops, of three widths."""

from __future__ import annotations

import time
from typing import Any

from bench.stage import Crew, Stage
from bench.workload import Figure, Part, Seen, Size, Sizes, Workload

SHARED = Crew(name="shared", module="fan")
#: How often each width is measured in a turn: a narrow one is over so soon that one alone says little.
TIMES = {"narrow": 5, "middle": 2, "wide": 1}


class Fan(Workload):
    """A stock chord against `fan_out_fail`: from the client's call until it knows what all gave."""

    name = "w2"
    title = "W2: fan-out and fan-in"
    parts = (
        Part("stock", "stock", SHARED, "stock chord"),
        Part("ours", "ours", SHARED, "fan_out_fail"),
        Part("stock_alone", "stock", Crew(name="alone", module="fan"), "stock, alone"),
    )
    figures = (
        Figure("s_1000", "s for 1,000", digits=2, source="middle"),
        Figure("s_100", "s for 100", digits=3, source="narrow"),
        Figure("s_10000", "s for 10,000", digits=2, source="wide"),
        Figure("cpu_s", "CPU s for all of them: workers and client", digits=2),
    )
    sizes = Sizes(
        full=Size(pairs=3, wait_s=180, amounts={"narrow": 100, "middle": 1000, "wide": 10_000}),
        quick=Size(pairs=1, wait_s=60, amounts={"narrow": 100, "middle": 1000, "wide": 2000}),
        tiny=Size(pairs=1, wait_s=60, amounts={"narrow": 3, "middle": 5, "wide": 10}),
    )

    def warm_up(self, stage: Stage, side: Any, size: Size) -> None:
        _fan_s(stage, side, 20, f"{stage.crew.name}-{side.name}-warm", size.wait_s)

    def turn(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        before = stage.usage()
        seen = {
            width: [
                _fan_s(stage, side, size.amounts[width], f"{name}-{width}-{number}", size.wait_s)
                for number in range(times)
            ]
            for width, times in TIMES.items()
        }
        return seen | {"cpu_s": [stage.usage().cpu_s - before.cpu_s]}


def _fan_s(stage: Stage, side: Any, n: int, name: str, wait_s: float) -> float:
    began_s = time.perf_counter()
    found = side.fan(n, name, wait_s)
    took_s = time.perf_counter() - began_s
    if found is None:
        raise stage.unfinished(f"{side.name}: a fan-out of {n} was not done", wait_s)
    if found != sum(range(n)):
        raise RuntimeError(f"{side.name}: a fan-out of {n} gave {found}, not {sum(range(n))}")
    stage.settle(wait_s)
    return took_s
