"""What the demo shows while its orders run: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from status import State
from tasks.demo_tally import ENDS, Row, Tally

#: Between two lines where there is no terminal.
LINE_EVERY_S = 2.0

#: Lines around the orders, the cursor's among them.
FRAME_LINES = 6

#: Below this many columns the step is left out.
WIDE_COLUMNS = 76

STYLES = {
    State.COMPLETED: "green",
    State.FAILED: "yellow",
    State.COMPENSATED: "magenta",
    State.COMPENSATING: "magenta",
    State.COMPENSATION_FAILED: "bold red",
}


@contextmanager
def shown(console: Console, tally: Tally) -> Iterator[None]:
    """Show the tally until the end of the block."""
    start_s = time.monotonic()

    def elapsed_s() -> float:
        return time.monotonic() - start_s

    if console.is_terminal:
        render = lambda: screen(tally, elapsed_s(), height=console.height, width=console.width)  # noqa: E731
        with Live(get_renderable=render, console=console, refresh_per_second=8):
            yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_say_lines, args=(console, tally, elapsed_s, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _say_lines(console: Console, tally: Tally, elapsed_s: object, over: threading.Event) -> None:
    while not over.wait(LINE_EVERY_S):
        console.print(line(tally, elapsed_s()), soft_wrap=True, highlight=False)  # type: ignore[operator]


def line(tally: Tally, elapsed_s: float) -> str:
    """All in one line."""
    ends = ", ".join(f"{tally.count(state)} {name}" for state, name in ENDS.items())
    return f"{elapsed_s:5.1f} s: {tally.ended} of {len(tally.rows)} orders ended ({ends}), {tally.steps} steps"


def screen(tally: Tally, elapsed_s: float, *, height: int, width: int) -> RenderableType:
    """The live view for a terminal of that size."""
    rows = choose(list(tally.rows.values()), max(1, height - FRAME_LINES))
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, max_width=24)
    table.add_column(width=20)
    table.add_column(width=4, justify="right", no_wrap=True)
    table.add_column(width=14, no_wrap=True)
    if width >= WIDE_COLUMNS:
        table.add_column(no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*_cells(row)[: len(table.columns)])
    hidden = len(tally.rows) - len(rows)
    more = [Text(f"… and {hidden} more orders", style="dim")] if hidden else []
    return Group(_totals(tally, elapsed_s, width), table, *more)


def choose(rows: list[Row], room: int) -> list[Row]:
    """Those to show: all if there is room, else those that run and then those that ended last."""
    if len(rows) <= room:
        return rows
    running = [row for row in rows if row.runs]
    ended = sorted((row for row in rows if row.ended), key=lambda row: row.ended or row.submitted, reverse=True)  # type: ignore[arg-type,return-value]
    waiting = [row for row in rows if row.state is State.PENDING]
    return [*running, *ended, *waiting][:room]


def _cells(row: Row) -> list[RenderableType]:
    style = STYLES.get(row.state, "cyan")
    waits = row.state is State.PENDING
    bar = ProgressBar(
        total=1.0, completed=row.progress, width=20, style="grey23", complete_style=style, finished_style=style
    )
    ended = ENDS.get(row.state, row.state.value)
    told = "" if waits else (row.phase if row.state is State.RUNNING else ended)
    return [
        Text(row.order_id, style="dim" if waits else "bold"),
        bar,
        Text("" if waits else f"{row.progress:.0%}"),
        Text(told, style=style),
        Text(row.doing or (f"{row.duration_s:.1f} s" if row.ended else ""), style="dim"),
    ]


def _totals(tally: Tally, elapsed_s: float, width: int) -> RenderableType:
    total = len(tally.rows)
    line = Text.assemble((f"{tally.ended} of {total} orders ended", "bold"))
    for state, name in ENDS.items():
        line.append("   ").append(f"{tally.count(state)} {name}", style=STYLES[state])
    runs = sum(row.runs for row in tally.rows.values())
    counts = f"{runs} run   {tally.count(State.PENDING)} wait   {tally.steps} steps   {elapsed_s:.1f} s"
    if tally.submitted < total:
        counts = f"{tally.submitted} submitted   {counts}"
    bar = ProgressBar(total=total, completed=tally.ended, width=min(width - 1, 78), finished_style="green")
    return Group(line, Text(counts), bar)
