"""How runs look on a terminal and as JSON. Everything here turns a value into a text; nothing asks Redis."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.progress_bar import ProgressBar
from rich.text import Text

from status.errors import ErrorInfo
from status.models import Event, RunStatus, StepStatus
from status.states import State

STATE_STYLES = {
    State.PENDING: "dim",
    State.RUNNING: "cyan",
    State.SUSPENDED: "blue",
    State.COMPENSATING: "magenta",
    State.CANCELLING: "yellow",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.COMPENSATED: "yellow",
    State.COMPENSATION_FAILED: "bold red",
    State.CANCELLED: "yellow",
    State.TIMED_OUT: "red",
}
STEP_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "retrying": "yellow",
    "done": "green",
    "failed": "red",
    "stopped": "dim",
}
BAR_WIDTH = 12


def state_text(state: str) -> Text:
    """A run's state in its colour."""
    return Text(state, style=STATE_STYLES.get(State(state), ""))


def step_text(state: str) -> Text:
    """A step's state in its colour."""
    return Text(state, style=STEP_STYLES.get(state, ""))


def bar(progress: float, *, width: int = BAR_WIDTH) -> ProgressBar:
    """A progress from 0 to 1 as a bar."""
    return ProgressBar(total=1.0, completed=progress, width=width, complete_style="cyan", finished_style="green")


def length(seconds: float) -> str:
    """A length of time for people: `85 ms`, `4.2 s`, `3 m 20 s`, `5 h 2 m`, `3 d 4 h`."""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, names in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= large:
            return f"{whole // large} {names[0]} {whole % large // small} {names[1]}"
    return f"{whole} s"


def age(status: RunStatus, now: datetime) -> str:
    """How long ago a run was submitted."""
    return length((now - status.started_at).total_seconds())


def run_duration(status: RunStatus, now: datetime) -> str:
    """From submit to end; of a run that goes on, to now."""
    return length(((status.finished_at or now) - status.started_at).total_seconds())


def step_duration_s(step: StepStatus, now: datetime) -> float | None:
    """Of the last attempt, in seconds; None if there was none."""
    if step.started_at is None:
        return None
    running = step.state == "running"
    end = now if running else step.finished_at
    return (end - step.started_at).total_seconds() if end else None


def error_lines(error: ErrorInfo) -> list[str]:
    """An error and what it was raised from, a line each."""
    lines: list[str] = []
    for link in error:
        told = "caused by " if lines else ""
        where = f" in {link.step}" if link.step else ""
        tried = f" after {link.attempts} attempts" if link.attempts > 1 else ""
        lines.append(f"{told}{short_type(link)}{where}{tried} (code {link.code}): {link.message}")
    return lines


def raised_at(error: ErrorInfo) -> list[str]:
    """Where a workflow's own code raised an error that is none of ours: the last place of its traceback."""
    if error.step is not None or not error.traceback or error.error_type.startswith("status.errors."):
        return []
    places = [
        line.strip().removeprefix("File ") for line in error.traceback.splitlines() if line.startswith('  File "')
    ]
    return [f"at {places[-1]}"] if places else []


def short_type(error: ErrorInfo) -> str:
    """The error's class without its module."""
    return error.error_type.rpartition(".")[2]


def event_line(event: Event, *, with_run: bool) -> Text:
    """An event as a line."""
    line = Text(f"{event.at.astimezone():%H:%M:%S.%f}"[:-3] + "  ", style="dim")
    if with_run:
        line.append(f"{event.run_id}  ", style="bold")
    line.append(f"{event.kind:<16}", style=event_style(event.kind))
    line.append(f" {event.name}" if event.name else "", style="default")
    detail = event_detail(event)
    return line.append(f"  {detail}" if detail else "", style="dim")


def event_style(kind: str) -> str:
    """The colour of a kind of event."""
    subject, _, verb = kind.partition(".")
    if subject == "run" and verb in list(State):
        return f"bold {STATE_STYLES[State(verb)]}"
    if "failed" in verb:
        return "red"
    return {"step": STEP_STYLES.get(verb, "cyan"), "saga": "magenta", "run": "bold"}.get(subject, "dim")


def event_detail(event: Event) -> str:
    """What is worth a line of an event's detail."""
    detail = event.detail
    if "error_type" in detail:
        return f"{str(detail['error_type']).rpartition('.')[2]}: {detail.get('message', '')}"
    if event.kind == "step.started":
        return "" if detail.get("detail") in {None, "1"} else f"attempt {detail['detail']}"
    if event.kind == "run.status":
        rest = {name: value for name, value in detail.items() if name not in {"phase", "progress"}}
        shown = [f"{float(detail['progress']):.0%}"] if "progress" in detail else []
        return " ".join(shown + [f"{name}={value}" for name, value in rest.items()])
    return " ".join(str(value) for value in detail.values())


def run_json(status: RunStatus, *, steps: bool) -> dict[str, Any]:
    """A run as plain JSON values; times in ISO 8601."""
    fields = asdict(status)
    fields["error"] = error_json(status.error)
    fields["steps"] = [_step_json(step) for step in status.steps]
    if not steps:
        del fields["steps"]
    return {name: _moment(value) for name, value in fields.items()}


def _step_json(step: StepStatus) -> dict[str, Any]:
    fields = asdict(step) | {"error": error_json(step.error), "duration_s": step_duration_s(step, datetime.now(UTC))}
    return {name: _moment(value) for name, value in fields.items()}


def error_json(error: ErrorInfo | None) -> dict[str, Any] | None:
    """An error as plain JSON values."""
    if error is None:
        return None
    return {
        "step": error.step,
        "error_type": error.error_type,
        "message": error.message,
        "code": error.code,
        "attempts": error.attempts,
        "traceback": error.traceback,
        "cause": error_json(error.cause),
    }


def event_json(event: Event) -> dict[str, Any]:
    """An event as plain JSON values."""
    return {name: _moment(value) for name, value in asdict(event).items()}


def dumps(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _moment(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
