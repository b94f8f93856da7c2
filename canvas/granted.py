"""Which claims the steps that run in this worker were granted, and which steps it runs without a message.

A pool's parent process knows what it has handed out, but not whether Redis has granted it. Only what was granted may
be said anew after a restart of Redis: a step that still waits for its grant does not run. Of a step that a process runs
in place (see `canvas.in_place`) the parent knows nothing else: it finds it here, and vouches for it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from billiard import current_process

from status.records import PartRef

#: Hex digits of a token.
TOKEN_SIZE = 32

#: Pool processes that are told apart; those of a larger pool say nothing anew, and run nothing in place.
SLOTS = 1024

#: Of a slot: the token, and what else is said of a step in place: a process id, the message's id, the step's name.
SLOT_SIZE = 512
LONGEST_NAME = 200

# Made before the pool forks, so that parent and children share it: a place for each, as each runs one step at a time.
_board = mmap.mmap(-1, SLOT_SIZE * SLOTS)
#: Of pools that run their steps in this process: token -> what is said of it.
_here: dict[str, str] = {}


class Held(NamedTuple):
    """A step that a process of this worker runs in place."""

    ref: PartRef
    token: str
    task: str
    pid: int


def _slot() -> int | None:
    """Where this pool process writes; None: the pool is no pool of processes."""
    return getattr(current_process(), "index", None)


def note(token: str, what: str = "") -> None:
    """A step begins here, with this claim."""
    slot = _slot()
    if slot is None:
        _here[token] = what
    elif slot < SLOTS and len(token) == TOKEN_SIZE:
        text = token.encode() + what.encode()[: SLOT_SIZE - TOKEN_SIZE]
        _board[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE] = text.ljust(SLOT_SIZE, b"\0")


def forget(token: str) -> None:
    """Its outcome is written down. (A pool process' place is taken by its next step.)"""
    _here.pop(token, None)


def runs(token: str) -> bool:
    """Whether a step of this worker was granted this claim, and has not ended."""
    return token in _here or _board.find(token.encode(), 0) >= 0


def has_room(step: str) -> bool:
    """Whether this process may say that it runs this step in place."""
    slot = _slot()
    return slot is None or (slot < SLOTS and len(step.encode()) <= LONGEST_NAME)


@contextmanager
def held(ref: PartRef, token: str, task: str) -> Iterator[None]:
    """In this block the step runs in place, with this claim."""
    note(token, f"{os.getpid()} {ref.message_id} {task}")
    try:
        yield
    finally:
        slot = _slot()
        if slot is not None and slot < SLOTS:
            note(token)
        forget(token)


def in_place() -> list[Held]:
    """What this worker's processes run in place now."""
    noted = list(_here.items())
    for at in range(0, _used(), SLOT_SIZE):
        text = _board[at : at + SLOT_SIZE].rstrip(b"\0").decode(errors="replace")
        noted.append((text[:TOKEN_SIZE], text[TOKEN_SIZE:]))
    return [held for token, what in noted if (held := _read(token, what)) is not None]


def _used() -> int:
    """Up to where anything is written."""
    return (len(_board[:].rstrip(b"\0")) + SLOT_SIZE - 1) // SLOT_SIZE * SLOT_SIZE


def _read(token: str, what: str) -> Held | None:
    # It may be written meanwhile: what makes no sense is nothing, and Redis is asked for the token anyway.
    pid, _, rest = what.partition(" ")
    message_id, _, task = rest.partition(" ")
    ref = PartRef.parse(message_id)
    return Held(ref, token, task, int(pid)) if ref is not None and pid.isdigit() else None


def clear(token: str) -> None:
    """The process that ran it is gone."""
    at = _board.find(token.encode(), 0)
    if at >= 0:
        _board[at : at + SLOT_SIZE] = b"\0" * SLOT_SIZE
