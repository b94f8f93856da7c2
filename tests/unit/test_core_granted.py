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
    for token in (TOKEN, OTHER):
        granted.forget(token)
        granted.clear(token)


def test_a_step_in_place_is_on_the_board_until_it_is_let_go(slot):
    holding = granted.Holding()

    holding.hold({TOKEN: granted.said_of(REF, "flow.add")}, TOKEN)

    assert granted.runs(TOKEN)
    assert granted.in_place() == [granted.Held(REF, TOKEN, "flow.add", os.getpid())]

    holding.let_go()

    assert granted.in_place() == []
    assert not granted.runs(TOKEN)


def test_of_the_claims_of_one_turn_the_board_says_which_runs_now(slot):
    second, holding = REF._replace(p="2"), granted.Holding()

    holding.hold({TOKEN: granted.said_of(REF, "flow.add"), OTHER: granted.said_of(second, "flow.sub")}, OTHER)

    assert granted.runs(TOKEN)
    assert granted.runs(OTHER)
    assert {(held.ref, held.task, held.running) for held in granted.in_place()} == {
        (REF, "flow.add", False),
        (second, "flow.sub", True),
    }
    holding.hold({OTHER: granted.said_of(second, "flow.sub")})
    assert [(held.ref, held.running) for held in granted.in_place()] == [(second, False)]
    holding.let_go()


def test_half_of_one_text_and_half_of_another_say_nothing(monkeypatch):
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=2))
    holding, start = granted.Holding(), 2 * granted.SLOT_SIZE
    holding.hold({TOKEN: granted.said_of(REF, "flow.subtract")}, TOKEN)
    long = granted._board[start : start + granted.SLOT_SIZE]
    holding.hold({TOKEN: granted.said_of(REF, "flow.add")}, TOKEN)

    half = granted.SUM_SIZE + granted.TOKEN_SIZE
    granted._board[start + half : start + granted.SLOT_SIZE] = long[half:]
    assert granted.in_place() == []

    granted._board[start : start + granted.SLOT_SIZE] = long
    assert [held.task for held in granted.in_place()] == ["flow.subtract"]
    holding.let_go()


def test_a_step_of_a_message_is_granted_and_not_in_place(slot):
    granted.note(TOKEN)

    assert granted.runs(TOKEN)
    assert not granted.runs(OTHER)
    assert granted.in_place() == []


def test_who_has_no_place_on_the_board_runs_nothing_in_place(monkeypatch):
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=granted.SLOTS))
    assert granted.room_for("order-7", "flow.add") == 0

    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=3))
    assert granted.room_for("order-7", "flow.add") == granted.TOGETHER
    assert granted.room_for("order-7", "x" * 201) == 0


def test_the_longest_ids_and_names_fit(monkeypatch):
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=5))
    ref = PartRef("r" * 200, 99_999, "9999", "0123456789abg99", 99_999)
    name, holding = "x" * granted.LONGEST_NAME, granted.Holding()
    claims = [(ref._replace(p=str(9990 + i)), f"{i:032x}", name) for i in range(granted.room_for(ref.run_id, name))]

    holding.hold({token: granted.said_of(ref, name) for ref, token, name in claims})

    pid = os.getpid()
    assert len(claims) == 4
    assert granted.in_place() == [granted.Held(ref, token, name, pid, running=False) for ref, token, name in claims]
    granted.clear(claims[2][1])
    assert granted.in_place() == [], "its process is gone, with all that it had"


def test_what_makes_no_sense_is_nothing(monkeypatch):
    monkeypatch.setattr(granted, "current_process", lambda: SimpleNamespace(index=7))
    granted._write(7, {TOKEN: "* 12 order-7/2.1~012"})

    assert granted.in_place() == []
    granted.clear(TOKEN)
