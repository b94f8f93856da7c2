"""The board that a worker's processes share: who runs what, with which claim."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from canvas import granted
from status.records import PartRef

TOKEN, OTHER = "a" * 32, "b" * 32
REF = PartRef("order-7", 2, "1", "0123456789ab", 1)


@pytest.fixture(params=[None, 0, 1023])
def slot(request, monkeypatch):
    """In a pool of threads, and in the first and the last process of a pool of processes."""
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=request.param))
    yield request.param
    granted.forget(TOKEN)
    granted.clear(TOKEN)


def test_a_step_in_place_is_on_the_board_while_it_runs(slot):
    with granted.held(REF, TOKEN, "flow.add"):
        assert granted.runs(TOKEN)
        assert granted.in_place() == [granted.Held(REF, TOKEN, "flow.add", os.getpid())]

    assert granted.in_place() == []


def test_a_step_of_a_message_is_granted_and_not_in_place(slot):
    granted.note(TOKEN)

    assert granted.runs(TOKEN)
    assert not granted.runs(OTHER)
    assert granted.in_place() == []


def test_who_has_no_place_on_the_board_runs_nothing_in_place(monkeypatch):
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=granted.SLOTS))
    assert not granted.has_room("flow.add")

    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=3))
    assert granted.has_room("flow.add")
    assert not granted.has_room("x" * 201)


def test_the_longest_ids_and_names_fit(monkeypatch):
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=5))
    ref = PartRef("r" * 200, 99_999, "9999", "0123456789abg99", 99_999)
    name = "x" * granted.LONGEST_NAME

    with granted.held(ref, TOKEN, name):
        assert granted.in_place() == [granted.Held(ref, TOKEN, name, os.getpid())]
    granted.clear(TOKEN)


def test_what_makes_no_sense_is_nothing(monkeypatch):
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=7))
    granted.note(TOKEN, "12 order-7/2.1~012")

    assert granted.in_place() == []
    granted.clear(TOKEN)
