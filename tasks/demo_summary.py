"""What the demo says at its end: a table for people, one line of JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from status import State
from status.states import FINAL
from tasks.demo_tally import ENDS, Tally
from tasks.demo_view import STYLES

#: Which way each order took is shown of so many orders at most.
PATHS = 60

#: So many violations are shown; the rest are counted.
VIOLATIONS = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """How it ended.

    Attributes:
        paths: Which way each order took, by run id; {} for many orders.
        violations: The invariants that do not hold; None: they could not be checked.
        unsettled: Runs that have ended and yet have work left.
    """

    tally: Tally
    paths: Mapping[str, str]
    violations: Sequence[str] | None
    unsettled: Sequence[str] = ()

    @property
    def stuck(self) -> int:
        """How many orders had not ended when time was up."""
        return len(self.tally.unfinished)

    @property
    def exit_code(self) -> int:
        """0 if all is as it should be, else 1."""
        bad = self.stuck or self.unsettled or self.violations != [] or self.tally.count(State.COMPENSATION_FAILED)
        return 1 if bad else 0

    @property
    def invariants(self) -> str | list[str]:
        """`hold`, or what is wrong."""
        if self.violations is None:
            return "not checked: some orders have not ended"
        return list(self.violations) or "hold"

    def others(self) -> dict[str, int]:
        """Orders that ended in a way that no order should, by state."""
        return {state.value: n for state in sorted(FINAL - ENDS.keys()) if (n := self.tally.count(state))}

    def as_json(self) -> str:
        """One line."""
        fields: dict[str, Any] = {"orders": len(self.tally.rows)}
        fields |= {name: self.tally.count(state) for state, name in ENDS.items()}
        fields |= {"stuck": self.stuck, "orders_per_s": round(self.tally.orders_per_s, 2)}
        fields |= {"invariants": self.invariants, **self.others()}
        if self.unsettled:
            fields["unsettled"] = list(self.unsettled)
        return json.dumps(fields, ensure_ascii=False)

    def show(self, console: Console) -> None:
        """For people."""
        if self.paths:
            console.print(self._paths_table())
            console.print()
        console.print(self._counts_table())
        self._say_time(console)
        self._say_problems(console)

    def _paths_table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("order", no_wrap=True)
        table.add_column("end", no_wrap=True)
        table.add_column("took", justify="right", no_wrap=True)
        table.add_column("which way it went", overflow="fold")
        for row in self.tally.rows.values():
            end = Text(ENDS.get(row.state, row.state.value), style=STYLES.get(row.state, "red"))
            table.add_row(row.order_id, end, f"{row.duration_s:.1f} s", Text(self.paths.get(row.run_id, "")))
        return table

    def _counts_table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(justify="right")
        table.add_column()
        for state, name in ENDS.items():
            table.add_row(str(self.tally.count(state)), Text(name, style=STYLES[state]))
        for name, number in self.others().items():
            table.add_row(str(number), Text(name.replace("_", " "), style="bold red"))
        table.add_row(str(self.stuck), Text("stuck", style="bold red" if self.stuck else "dim"))
        return table

    def _say_time(self, console: Console) -> None:
        tally = self.tally
        slowest = max(tally.rows.values(), key=lambda row: row.duration_s)
        console.print(
            f"{len(tally.rows)} orders, {tally.steps} steps in {tally.elapsed_s:.1f} s: "
            f"{tally.orders_per_s:.1f} orders/s; slowest {slowest.order_id}, {slowest.duration_s:.1f} s after submit",
            highlight=False,
            soft_wrap=True,
        )

    def _say_problems(self, console: Console) -> None:
        for row in self.tally.rows.values():
            if row.state not in ENDS:
                how = f"ended as {row.state}" if row.state in FINAL else f"is stuck in {row.state}, {row.phase or '-'}"
                console.print(f"order {row.order_id} {how}", style="bold red", highlight=False)
        for run_id in self.unsettled:
            console.print(f"run {run_id} has ended and yet has work left", style="bold red", highlight=False)
        if self.violations is None:
            console.print("invariants: not checked, some orders have not ended", style="bold red")
        elif not self.violations:
            console.print("invariants hold: stock, money, reservations, papers", style="bold green")
        else:
            console.print(f"{len(self.violations)} invariants do not hold:", style="bold red")
            for violation in self.violations[:VIOLATIONS]:
                console.print(f"  {violation}", style="red", highlight=False, markup=False)
