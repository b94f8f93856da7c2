"""Which claims the steps that run in this worker were granted.

A pool's parent process knows what it has handed out, but not whether Redis has granted it. Only what was granted may
be said anew after a restart of Redis: a step that still waits for its grant does not run.
"""

from __future__ import annotations

import mmap

from billiard import current_process

#: Hex digits of a token.
TOKEN_SIZE = 32

#: Pool processes that are told apart; those of a larger pool say nothing anew.
SLOTS = 1024

# Made before the pool forks, so that parent and children share it: a place for each, as each runs one step at a time.
_board = mmap.mmap(-1, TOKEN_SIZE * SLOTS)
#: Of pools that run their steps in this process.
_here: set[str] = set()


def note(token: str) -> None:
    """A step begins here, with this claim."""
    slot = getattr(current_process(), "index", None)
    if slot is None:
        _here.add(token)
    elif slot < SLOTS and len(token) == TOKEN_SIZE:
        _board[slot * TOKEN_SIZE : (slot + 1) * TOKEN_SIZE] = token.encode()


def forget(token: str) -> None:
    """Its outcome is written down. (A pool process' place is taken by its next step.)"""
    _here.discard(token)


def runs(token: str) -> bool:
    """Whether a step of this worker was granted this claim, and has not ended."""
    return token in _here or _board.find(token.encode(), 0) >= 0
