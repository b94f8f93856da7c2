"""The waiting of the other tests."""

from __future__ import annotations

import pytest

from waiting import wait_until


def test_gives_what_the_condition_gave():
    looks = iter([0, None, "paid"])

    value = wait_until(lambda: next(looks), "the order is paid", every_s=0)

    assert value == "paid"


def test_says_the_reason_and_the_last_value():
    with pytest.raises(AssertionError) as caught:
        wait_until(list, "the order is paid", timeout_s=0.05, every_s=0.01)

    assert str(caught.value) == "waited 0.05 s until the order is paid; the last look gave []"


def test_looks_at_least_once_when_there_is_no_time():
    assert wait_until(lambda: True, "it is true already", timeout_s=0)


def test_an_error_in_the_condition_is_seen():
    def broken():
        raise KeyError("order")

    with pytest.raises(KeyError):
        wait_until(broken, "the order is there")
