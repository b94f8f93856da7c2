"""The signal of a soft time limit raises in the body that it is for, and nowhere else in its message."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery._state import _task_stack

from canvas import time_limits


@pytest.fixture
def task():
    """A step whose message this process works on."""
    task = SimpleNamespace(name="limited")
    _task_stack.push(task)
    time_limits.spare(task)
    yield task
    time_limits.spare_nothing()
    _task_stack.pop()


def time_is_up():
    time_limits._time_is_up(10, None)


def test_in_the_body_it_raises_and_around_it_not(task):
    with pytest.raises(SoftTimeLimitExceeded), time_limits.body_of(task):
        time_is_up()

    time_is_up()


def test_a_time_that_was_up_before_the_body_ends_that_as_it_begins(task):
    time_is_up()

    with pytest.raises(SoftTimeLimitExceeded), time_limits.body_of(task):
        pytest.fail("the body ran")
    time_is_up()


def test_a_time_that_was_up_before_a_body_that_never_began_is_not_the_next_ones(task):
    time_is_up()
    time_limits.body_is_over()

    with time_limits.body_of(task):
        time_is_up()


def test_the_same_step_in_place_after_the_body_has_no_limit(task):
    with time_limits.body_of(task):
        pass

    with time_limits.body_of(task):
        time_is_up()


def test_a_message_that_is_over_spares_no_other_task(task):
    _task_stack.pop()
    try:
        with pytest.raises(SoftTimeLimitExceeded):
            time_is_up()
    finally:
        _task_stack.push(task)
