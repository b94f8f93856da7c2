"""Waiting in tests: a condition, a reason and a deadline, never a sleep and a hope."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], reason: str, timeout_s: float = 10.0, every_s: float = 0.02) -> T:
    """Call `condition` until what it gives is true, and return that.

    It is called at least once, and once more after the deadline, so that a test that was
    stopped for longer than its time still sees what has come true meanwhile.

    Args:
        condition: What is waited for. What it raises is not swallowed.
        reason: For the message: what it is waited for, as in "the order is paid".
        timeout_s: After this long the wait has failed.
        every_s: Time between two looks.

    Raises:
        AssertionError: It did not become true; the message has the reason and the last value.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        last_look = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if last_look:
            raise AssertionError(f"waited {timeout_s} s until {reason}; the last look gave {value!r}")
        time.sleep(every_s)
