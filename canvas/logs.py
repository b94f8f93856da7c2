"""Log lines that say which run and which step they are of.

    from canvas import logs
    logs.install()             # where the app is made; `logs.install(as_json=True)`: a line of JSON each

Or piece by piece: `RunFilter` on a handler of your own, `JsonLines` as its formatter, `add_run` in structlog's chain.
"""

from __future__ import annotations

import json
import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from celery import signals

from canvas.context import place_here

#: What a record gets of the step or turn in which it is written; '' outside of any.
FIELDS = ("run_id", "step_id", "step", "attempt", "workflow")

#: The usual format, with the run or the step in it.
FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s%(of_run)s] %(message)s"

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "of_run"}


class RunFilter(logging.Filter):
    """Adds `run_id`, `step_id`, `step`, `attempt` and `workflow` to each record; lets all through.

    `of_run` is a short form for a format: ` order-7/2.1`, or '' outside. What a record has already stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        here = place_here()
        for name in FIELDS:
            if not hasattr(record, name):
                setattr(record, name, here.get(name, ""))
        which = record.__dict__["step_id"] or record.__dict__["run_id"]
        record.of_run = f" {which}" if which else ""
        return True


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, run and step, and what else was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN and value not in {"", None}}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def add_run(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: adds the run and the step in which a line is written."""
    for name, value in place_here().items():
        event.setdefault(name, value)
    return event


def install(*, as_json: bool = False) -> None:
    """Let what Celery sets up for logging say run and step. Call it where the app is made, once."""

    def prepare(logger: logging.Logger, **_: Any) -> None:
        for handler in logger.handlers:
            handler.addFilter(RunFilter())
            handler.setFormatter(JsonLines() if as_json else logging.Formatter(FORMAT))

    signals.after_setup_logger.connect(prepare, weak=False)
    signals.after_setup_task_logger.connect(prepare, weak=False)
