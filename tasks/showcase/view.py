"""How runs are shown while they go on: as they stand on a terminal, an event a line elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from status import cli_text as text
from status.models import Event, RunStatus, StepStatus

#: A run of more steps is shown by their number.
STEPS_SHOWN = 8

#: More runs are shown by their number.
RUNS_SHOWN = 6


class View(Protocol):
    """Is told what happens."""

    def happened(self, events: Iterable[Event]) -> None:
        """Events, in their order."""

    def stands(self, runs: Sequence[RunStatus]) -> None:
        """The runs as they stand now."""


@contextmanager
def shown(console: Console, labels: Mapping[str, str]) -> Iterator[View]:
    """A view of some runs, for as long as the block goes on.

    Args:
        labels: By run id.
    """
    if not console.is_terminal:
        yield Lines(console, labels)
        return
    with Live(console=console, refresh_per_second=10) as live:
        yield Board(live, labels)


class Lines:
    """An event a line; of many runs only their ends."""

    def __init__(self, console: Console, labels: Mapping[str, str]) -> None:
        self._console = console
        self._labels = labels
        self._width = max(map(len, labels.values()), default=0)
        self._many = len(labels) > RUNS_SHOWN
        self._steps: Counter[str] = Counter()

    def happened(self, events: Iterable[Event]) -> None:
        """Say each that is worth a line."""
        for event in events:
            if self._is_worth_a_line(event):
                line = Text(f"  {self._labels[event.run_id]:{self._width}}  ", style="bold")
                self._console.print(line + text.event_line(event, with_run=False), soft_wrap=True)

    def stands(self, runs: Sequence[RunStatus]) -> None:
        """Nothing: events say it."""

    def _is_worth_a_line(self, event: Event) -> bool:
        kind, _, verb = event.kind.partition(".")
        if self._many:
            return kind == "run" and verb not in {"submitted", "status"}
        if kind == "step":
            self._steps[event.run_id] += verb == "started"
            return self._steps[event.run_id] <= STEPS_SHOWN
        return kind != "join"


class Board:
    """All runs with their steps, drawn anew."""

    def __init__(self, live: Live, labels: Mapping[str, str]) -> None:
        self._live = live
        self._labels = labels

    def happened(self, events: Iterable[Event]) -> None:
        """Nothing: `stands` says it."""

    def stands(self, runs: Sequence[RunStatus]) -> None:
        """Draw them."""
        now = datetime.now(UTC)
        if len(runs) > RUNS_SHOWN:
            self._live.update(summed_up(runs))
        else:
            self._live.update(Group(*(block(self._labels[run.run_id], run, now) for run in runs)))


def summed_up(runs: Sequence[RunStatus]) -> RenderableType:
    """How many runs are in which state."""
    line = Text(f"  {len(runs)} runs")
    for state, number in Counter(run.state for run in runs).most_common():
        line.append(f"   {number} ").append_text(text.state_text(state))
    return line


def block(label: str, run: RunStatus, now: datetime) -> RenderableType:
    """A run and its steps."""
    head = Text(f"  {label}  ", style="bold").append_text(text.state_text(run.state))
    head.append(f"  {run.phase}" if run.phase else "", style="not bold")
    head.append(f"  {run.progress:.0%}" if run.progress else "", style="not bold")
    head.append(f"  {text.run_duration(run, now)}", style="not bold dim")
    if run.error is not None:
        head.append(f"  {run.error.message}", style="not bold red")
    if len(run.steps) > STEPS_SHOWN:
        return Group(head, _counted(run.steps))
    table = Table.grid(padding=(0, 2))
    for step in run.steps:
        table.add_row("   ", step.name, text.step_text(step.state), _took(step, now), _said(step))
    return Group(head, table)


def _counted(steps: Sequence[StepStatus]) -> Text:
    line = Text(f"    {len(steps)} steps")
    for state, number in Counter(step.state for step in steps).most_common():
        line.append(f"   {number} ").append_text(text.step_text(state))
    return line


def _took(step: StepStatus, now: datetime) -> str:
    took_s = text.step_duration_s(step, now)
    return "" if took_s is None else text.length(took_s)


def _said(step: StepStatus) -> Text:
    if step.error is not None:
        return Text(step.error.message, style="red", overflow="ellipsis", no_wrap=True)
    return Text(f"run {step.child_run_id}" if step.child_run_id else "", style="dim")
