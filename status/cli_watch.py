"""`celery runs watch`: one run's events as they happen, or a live board of all that go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from status import cli_text as text
from status.cli_show import runs_table
from status.following import Follower
from status.models import Event, RunStatus
from status.reading import Reader
from status.states import FINAL, State

#: New runs are looked for so often: they are on no stream that could be waited for.
LOOK_S = 2.0

#: Events are taken together for so long before they are shown: a busy system has thousands a second.
GATHER_S = 0.2

#: Of a run that ended, so that its last state can be read.
STAYS_S = 3.0

#: Lines of the board that are not runs.
FRAME_LINES = 4

#: An event a line is given of at most so many runs at a time.
LINE_RUNS = 1000

UNFINISHED = tuple(state for state in State if state not in FINAL)


def watch_one(console: Console, events: Iterator[Event], *, as_json: bool) -> None:
    """Say what happens to a run, until it ends."""
    for event in events:
        if as_json:
            click.echo(text.dumps(text.event_json(event)))
        else:
            console.print(text.event_line(event, with_run=False), soft_wrap=True)


class Board:
    """The runs that are not finished, as events say they go on; those that have begun, then the newest.

    Args:
        from_start: Whether `read` gives what has happened to them before, too.
    """

    def __init__(self, reader: Reader, *, from_start: bool = False) -> None:
        self._reader = reader
        self.follower = Follower(reader)
        self._runs: dict[str, RunStatus] = {}
        self._ended_s: dict[str, float] = {}
        self._counts: dict[State, int] = {}
        self._from_start = from_start  #: of a run that is listed next: a later one is new

    def look(self, limit: int) -> None:
        """Read which runs there are: at most `limit`, those first that the board would show first."""
        self._counts = self._reader.counts()
        pages = [self._reader.page(state=state, limit=limit) for state in UNFINISHED if self._counts[state]]
        found = sorted((run for page in pages for run in page.runs), key=_place)
        listed = {run.run_id: run for run in found[:limit]}
        for run_id in [run_id for run_id in self._runs if run_id not in listed and self._gone(run_id)]:
            self._forget(run_id)
        for run_id, run in listed.items():
            self.follower.follow(run_id, from_start=self._from_start)
            self._runs[run_id] = run
        self._from_start = True

    def read(self, timeout_s: float) -> list[Event]:
        """What happened; waits for it."""
        if not len(self.follower):
            time.sleep(timeout_s)
        events = self.follower.read(timeout_s)
        for event in events:
            self._apply(event)
        return events

    def render(self, height: int) -> RenderableType:
        """The board for so many lines."""
        going_on = sum(self._counts.get(state, 0) for state in UNFINISHED)
        title = Text(f"{going_on} runs go on", style="bold")
        for state in (*UNFINISHED, *sorted(FINAL)):
            if self._counts.get(state):
                title.append(f"   {self._counts[state]} ", style="not bold").append_text(text.state_text(state))
        shown = sorted(self._runs.values(), key=_place)[: max(1, height - FRAME_LINES)]
        table = runs_table(shown, datetime.now(UTC)) if shown else Text("nothing to see yet", style="dim")
        return Group(title, Text("Ctrl-C ends this view, not the runs", style="dim"), table)

    def _apply(self, event: Event) -> None:
        run = self._runs.get(event.run_id)
        if run is None:
            return
        self._runs[event.run_id] = after(run, event)
        if event.kind.removeprefix("run.") in FINAL:
            self._ended_s[event.run_id] = time.monotonic()
            self.follower.forget(event.run_id)

    def _gone(self, run_id: str) -> bool:
        """Whether a run that is no longer listed may go: it was not listed for want of room, or ended a while ago."""
        ended_s = self._ended_s.get(run_id)
        return ended_s is None or time.monotonic() - ended_s > STAYS_S

    def _forget(self, run_id: str) -> None:
        self.follower.forget(run_id)
        self._runs.pop(run_id)
        self._ended_s.pop(run_id, None)


def _place(run: RunStatus) -> tuple[bool, float]:
    return run.state is State.PENDING, -run.started_at.timestamp()


def after(run: RunStatus, event: Event) -> RunStatus:
    """The run as it is after an event."""
    verb = event.kind.partition(".")[2]
    match event.kind:
        case "run.status" if "progress" in event.detail:
            return replace(run, phase=event.name, progress=float(event.detail["progress"]), updated_at=event.at)
        case "run.cancelling":
            return replace(run, state=State.CANCELLING, updated_at=event.at)
        # Without a saga it is a race's loser that succeeded too late, of a run that goes on or has even ended.
        case "saga.undoing" if "saga" in event.detail:
            return replace(run, state=State.COMPENSATING, updated_at=event.at)
        case "step.started" if run.state in {State.PENDING, State.SUSPENDED}:
            return replace(run, state=State.RUNNING, updated_at=event.at)
    if event.kind.startswith("run.") and verb in FINAL:
        return replace(run, state=State(verb), updated_at=event.at, finished_at=event.at)
    return replace(run, updated_at=event.at)


def watch_board(console: Console, reader: Reader) -> None:
    """The live board, until Ctrl-C."""
    board = Board(reader)
    board.look(console.height)
    with Live(
        get_renderable=lambda: board.render(console.height), console=console, refresh_per_second=4, screen=False
    ) as live:
        while True:
            look_s = time.monotonic() + LOOK_S
            while (left_s := look_s - time.monotonic()) > 0:
                if board.read(left_s):
                    time.sleep(GATHER_S)
            board.look(console.height)
            live.refresh()


def watch_lines(reader: Reader, say: Callable[[Event], None]) -> None:
    """Each event of each run that is not finished, from its first on, until Ctrl-C."""
    board = Board(reader, from_start=True)
    while True:
        board.look(LINE_RUNS)
        look_s = time.monotonic() + LOOK_S
        while (left_s := look_s - time.monotonic()) > 0:
            for event in board.read(left_s):
                say(event)


def watch_all(console: Console, reader: Reader, *, as_json: bool) -> None:
    """All runs that are not finished: on a terminal as a board, else an event a line. Until Ctrl-C."""
    if as_json:
        watch_lines(reader, lambda event: click.echo(text.dumps(text.event_json(event))))
    elif not console.is_terminal:
        watch_lines(reader, lambda event: click.echo(text.event_line(event, with_run=True).plain))
    else:
        watch_board(console, reader)
