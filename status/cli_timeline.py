"""The timeline of a run as text: each step a line, each attempt a bar on the run's time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from status import cli_text as text
from status.models import Event, RunStatus, StepStatus
from status.states import StepState

#: The last attempt of a step, and those before it.
LAST, EARLIER = "━", "╌"

#: Columns of the bars, and of what stands before and after them.
NARROWEST, NAMES, AFTER = 20, 28, 12

#: Lines; of a long batch the rest is left out.
LINES = 60

#: From and to, in seconds after the submit.
Span = tuple[float, float]


def timeline(run: RunStatus, events: Sequence[Event], now: datetime, width: int) -> list[Text]:
    """The steps that have begun, in the order of their places; [] if none has.

    Args:
        width: Columns there are.
    """
    end_s = max(((run.finished_at or now) - run.started_at).total_seconds(), 0.001)
    columns = max(NARROWEST, width - NAMES - AFTER - 3)
    begun = [step for step in run.steps if step.started_at is not None]
    if not begun:
        return []
    names = Counter(step.name for step in run.steps)
    lines = [_axis(end_s, columns, going_on=run.finished_at is None)]
    for step in begun[:LINES]:
        earlier = earlier_attempts(step, events, run.started_at) if names[step.name] == 1 else []
        lines.append(_line(run, step, earlier, now=now, end_s=end_s, columns=columns))
    if len(begun) > LINES:
        lines.append(Text(f"{len(begun) - LINES} more: --json has them all", style="dim"))
    return lines


def earlier_attempts(step: StepStatus, events: Sequence[Event], submitted: datetime) -> list[Span]:
    """The attempts before the last one, as events tell of a step whose name no other step of the run has."""
    began: float | None = None
    spans: list[Span] = []
    for event in events:
        if event.name != step.name:
            continue
        at_s = (event.at - submitted).total_seconds()
        if event.kind == "step.started":
            if began is not None:  # its process died
                spans.append((began, at_s))
            began = at_s
        elif event.kind == "step.retrying" and began is not None:
            spans.append((began, at_s))
            began = None
    return spans[: step.attempt - 1] if step.attempt > 1 else []


def _line(
    run: RunStatus, step: StepStatus, earlier: Sequence[Span], *, now: datetime, end_s: float, columns: int
) -> Text:
    assert step.started_at is not None  # noqa: S101 — the caller has looked
    start_s = (step.started_at - run.started_at).total_seconds()
    took_s = text.step_duration_s(step, now) or 0.0
    cells = [" "] * columns
    for span in earlier:
        _draw(cells, span, end_s, EARLIER)
    _draw(cells, (start_s, start_s + took_s), end_s, LAST)
    place = step.step_id.rpartition("/")[2]
    label = f"{place} {step.name}"
    line = Text(f"{label[: NAMES - 1] + '…' if len(label) > NAMES else label:<{NAMES}} ")
    style = text.STEP_STYLES.get(step.state, "")
    for cell in cells:
        line.append(cell, style="yellow" if cell == EARLIER else style)
    line.append(f" {text.length(took_s)}", style="dim")
    if step.state == StepState.RUNNING:
        line.append(" …", style="dim")
    return line


def _draw(cells: list[str], span: Span, end_s: float, sign: str) -> None:
    """At least one cell, however short it was."""
    columns = len(cells)
    first = min(max(int(span[0] / end_s * columns), 0), columns - 1)
    last = min(max(int(span[1] / end_s * columns), first), columns - 1)
    for at in range(first, last + 1):
        cells[at] = sign


def _axis(end_s: float, columns: int, *, going_on: bool) -> Text:
    end = f"{text.length(end_s)}{' now' if going_on else ''}"
    return Text(f"{'timeline':<{NAMES}} 0{end:>{columns - 1}}", style="dim")
