"""Log lines say which run and which step they are of."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from canvas import logs
from canvas.context import CurrentStep, running_as, taking_turn

STEP = CurrentStep("order-7", "order-7/2.1", "key", attempt=2, step_name="pay")


@pytest.fixture
def lines() -> Any:
    """What a logger writes as JSON."""
    written: list[dict[str, Any]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(json.loads(self.format(record)))

    handler = Handler()
    handler.addFilter(logs.RunFilter())
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("test.logs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)


def test_a_line_of_a_step_says_its_run_step_and_attempt(lines):
    with running_as(STEP):
        logging.getLogger("test.logs").info("charged %d", 12, extra={"cents": 12})

    (line,) = lines
    assert line.pop("time").startswith("20")
    assert line == {
        "level": "info", "logger": "test.logs", "message": "charged 12", "cents": 12,
        "run_id": "order-7", "step_id": "order-7/2.1", "step": "pay", "attempt": 2,
    }  # fmt: skip


def test_a_line_of_a_turn_says_its_run_and_a_line_of_neither_says_nothing(lines):
    with taking_turn("order-7", "orders.complete"):
        logging.getLogger("test.logs").info("a")
    logging.getLogger("test.logs").info("b")

    assert [{name: line.get(name) for name in ("run_id", "workflow", "step_id")} for line in lines] == [
        {"run_id": "order-7", "workflow": "orders.complete", "step_id": None},
        {"run_id": None, "workflow": None, "step_id": None},
    ]


def test_an_error_keeps_its_traceback_and_what_the_caller_says_comes_first(lines):
    try:
        int("no")
    except ValueError:
        logging.getLogger("test.logs").exception("failed", extra={"run_id": "other"})

    assert lines[0]["run_id"] == "other"
    assert lines[0]["traceback"].endswith("invalid literal for int() with base 10: 'no'")


def test_the_plain_format_has_the_step_and_nothing_outside_of_one():
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", "processName": "Main"})
    with running_as(STEP):
        logs.RunFilter().filter(record)

    assert logging.Formatter(logs.FORMAT).format(record).endswith("INFO/Main order-7/2.1] hello")


def test_structlog_gets_the_same():
    with running_as(STEP):
        event = logs.add_run(None, "info", {"event": "charged", "step": "mine"})

    assert event == {"event": "charged", "step": "mine", "run_id": "order-7", "step_id": "order-7/2.1", "attempt": 2}
