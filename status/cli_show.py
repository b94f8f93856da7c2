"""`celery runs show` and `list`: runs as tables."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from status import cli_text as text
from status.cli_timeline import timeline
from status.models import Event, Page, RunStatus
from status.states import State, StepState

#: Workers have this long to say which queues they listen on.
ASK_WORKERS_S = 1.0

#: So many parts of a batch stay in the timeline; as in `_join.lua`.
BATCH_SHOWN = 1000


def runs_table(runs: Iterable[RunStatus], now: datetime) -> Table:
    """Runs, one a row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run id", overflow="fold", no_wrap=False)
    table.add_column("workflow", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("phase", overflow="fold")
    table.add_column("progress", min_width=text.BAR_WIDTH)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            run.run_id,
            run.workflow,
            text.state_text(run.state),
            run.phase,
            text.bar(run.progress),
            text.age(run, now),
            text.run_duration(run, now),
        )
    return table


def print_page(console: Console, page: Page) -> None:
    """A page of a listing."""
    if not page.runs:
        console.print("no runs")
        return
    console.print(runs_table(page.runs, datetime.now(UTC)))
    if page.cursor:
        console.print(Text(f"there may be more: --cursor {page.cursor}", style="dim"), soft_wrap=True)


def run_page(run: RunStatus, events: Sequence[Event], now: datetime, width: int = 0) -> RenderableType:
    """All about one run; with its timeline where there are `width` columns for it."""
    parts: list[RenderableType] = [_header(run, now)]
    if not _silent(run):
        parts.append(_phases(run, events))
    if run.steps:
        parts += [Text(), _steps_table(run, now)]
        if _left_out(run):
            parts.append(Text(f"of a batch, {BATCH_SHOWN:,} parts and as many failures are shown", style="dim"))
        parts += [Text(f"waits: {step.step_id}: {step.waits}", style="yellow") for step in run.steps if step.waits]
    bars = timeline(run, events, now, width) if width else []
    parts += [Text(), *bars] if bars else []
    undone = [event for event in events if event.kind.startswith("saga.")]
    if undone:
        parts += [Text(), Text("saga", style="bold"), *(text.event_line(event, with_run=False) for event in undone)]
    if run.error is not None:
        lines = text.error_lines(run.error)
        parts += [Text(), Text("error", style="bold red"), *(Text(f"  {line}") for line in lines)]
        parts += [Text(f"  {line}", style="dim") for line in text.raised_at(run.error)]
    return Group(*parts)


def _header(run: RunStatus, now: datetime) -> RenderableType:
    line = Text(run.run_id, style="bold")
    line.append(f"  {run.workflow}  ", style="default")
    line.append_text(text.state_text(run.state))
    took = "took" if run.finished else "for"
    line.append(f"  {took} {text.run_duration(run, now)}", style="default")
    line.append(f"  submitted {run.started_at.astimezone():%Y-%m-%d %H:%M:%S}", style="dim not bold")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(text.bar(run.progress, width=30), f"{run.progress:.0%}", run.phase)
    more = [f"{name}={value}" for name, value in run.metadata.items()]
    more += [f"part of {run.parent}"] if run.parent else []
    more += [f"round {run.round:,}"] if run.round > 1 else []
    return Group(line, *([] if _silent(run) else [grid]), *([Text("  ".join(more), style="dim")] if more else []))


def _silent(run: RunStatus) -> bool:
    """Whether a run has ended and never said how far it was."""
    return run.finished and not run.phase and not run.progress


def _left_out(run: RunStatus) -> bool:
    """Whether an await has so many parts that its later ones are not kept."""
    return max(Counter(step.step_id.rpartition(".")[0] for step in run.steps).values()) >= BATCH_SHOWN


def _phases(run: RunStatus, events: Sequence[Event]) -> Text:
    """Each phase, with when it began after the submit."""
    seen: list[str] = []
    line = Text("phases  ", style="dim")
    for event in events:
        if event.kind != "run.status" or event.name == (seen[-1] if seen else None):
            continue
        after = text.length((event.at - run.started_at).total_seconds())
        line.append(f"{' → ' if seen else ''}{event.name}", style="default")
        line.append(f" +{after}", style="dim")
        seen.append(event.name)
    return line if seen else Text("no phase yet", style="dim")


def _steps_table(run: RunStatus, now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "name", "state"):
        table.add_column(name)
    table.add_column("try", justify="right")
    table.add_column("queue")
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("error", overflow="fold")
    for step in run.steps:
        took_s = text.step_duration_s(step, now)
        table.add_row(
            step.step_id.rpartition("/")[2],
            step.name,
            text.step_text(step.state),
            str(step.attempt),
            f"run {step.child_run_id}" if step.child_run_id else step.queue,
            "" if took_s is None else text.length(took_s),
            f"{text.short_type(step.error)}: {step.error.message}" if step.error else "",
        )
    return table


def unserved(app: Celery, run: RunStatus) -> list[str]:
    """The queues on which something of the run waits and that no worker listens on."""
    # A sleep and a promise wait on no queue.
    waiting = {step.queue for step in run.steps if step.queue and step.state in {StepState.WAITING, StepState.RETRYING}}
    if run.state is State.PENDING:
        waiting |= _turn_queue(app, run.workflow)
    if run.finished or not waiting:
        return []
    answers: dict[str, Any] = app.control.inspect(timeout=ASK_WORKERS_S).active_queues() or {}
    served = {queue["name"] for queues in answers.values() for queue in queues}
    return sorted(waiting - served)


def hint(queue: str, app_name: str) -> str:
    """What to do about a queue that no worker listens on."""
    return f"no worker listens on queue {queue!r}: start one with `celery -A {app_name} worker -Q {queue}`"


def awaited_promises(run: RunStatus) -> list[str]:
    """The names of the promises that a run waits for."""
    names = [step.promise for step in run.steps if step.promise and step.state == StepState.WAITING]
    return [] if run.finished else list(dict.fromkeys(names))


def awaited_channels(run: RunStatus) -> list[str]:
    """The names of the channels of which a run waits for a message."""
    names = [step.channel for step in run.steps if step.channel and step.state == StepState.WAITING]
    return [] if run.finished else list(dict.fromkeys(names))


def channel_hint(run_id: str, name: str, app_name: str) -> str:
    """How to send a message."""
    command = shlex.join(["celery", "-A", app_name, "runs", "send", run_id, name])
    return f"it waits for a message on channel {name!r}: `{command} JSON`"


def promise_hint(run_id: str, name: str, app_name: str) -> str:
    """How to give a promise its value."""
    command = shlex.join(["celery", "-A", app_name, "runs", "resolve", run_id, name])
    return f"it waits for promise {name!r}: `{command} JSON`"


def _turn_queue(app: Celery, workflow: str) -> set[str]:
    app.loader.import_default_modules()
    queue_of = getattr(app.tasks.get(workflow), "queue_of", None)
    return set() if queue_of is None else {queue_of({})}
