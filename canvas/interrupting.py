"""Interrupts a step in a pool process: raises `Cancelled` in its body, so that it tidies up and its process lives on.

The parent writes which claim it means into memory that both share, and sends a signal. The process raises only while
the body of just that claim runs: its answer and its next step are never hit. SIGURG is what Go's runtime preempts
with, and for the same reasons: a process without a handler ignores it, and hardly any library has use for it.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable
from typing import Any, TypeVar

from canvas.granted import SLOTS, TOKEN_SIZE, slot_here
from status.errors import Cancelled

T = TypeVar("T")

SIGNAL = signal.SIGURG

#: Made before the pool forks. A place for each process: whose body runs in it, then whose is to be interrupted.
_board = mmap.mmap(-1, 2 * TOKEN_SIZE * SLOTS)
_NOBODY = b"\0" * TOKEN_SIZE
#: The claim whose body was interrupted last in this process.
_cut = _NOBODY


class Interrupted(Cancelled):
    """The step runs in vain: its join was decided, its run cancelled, or its time is up."""


def _place(slot: int) -> tuple[slice, slice]:
    at = 2 * TOKEN_SIZE * slot
    return slice(at, at + TOKEN_SIZE), slice(at + TOKEN_SIZE, at + 2 * TOKEN_SIZE)


def interruptible(token: str, body: Callable[[], T]) -> T:
    """What `body` gives.

    Raises:
        Interrupted: The claim's worker was asked to stop it.
    """
    slot = slot_here()
    if slot is None or slot >= SLOTS or len(token) != TOKEN_SIZE:
        return body()
    signal.signal(SIGNAL, _interrupt)
    running, asked = _place(slot)
    try:
        _board[running] = token.encode()
        if _board[asked] == _board[running]:  # the signal came before its time
            _interrupt()
        return body()
    except (Cancelled, BaseExceptionGroup) as error:
        if was_cut(token) and not isinstance(error, Interrupted):
            raise Interrupted(str(error)) from error  # what its code has made of it
        raise
    finally:
        _board[running] = _NOBODY  # what is asked from here on, is asked in vain


def _interrupt(*_: Any) -> None:
    global _cut  # a signal's handler has no other place
    slot = slot_here()
    if slot is None:
        return
    running, asked = _place(slot)
    if _board[running] != _NOBODY and _board[running] == _board[asked]:
        _cut, _board[asked] = _board[asked], _NOBODY  # once: what it does to tidy up is not interrupted
        raise Interrupted("nobody waits for this step any more")


def was_cut(token: str) -> bool:
    """Whether this claim's body was interrupted, whatever came of that."""
    return bool(_cut == token.encode())


def ask(slot: int, pid: int, token: str) -> bool:
    """Interrupt this claim's body, which runs in that pool process or is about to. Returns whether it was asked."""
    if slot >= SLOTS or len(token) != TOKEN_SIZE:
        return False
    _board[_place(slot)[1]] = token.encode()
    try:
        os.kill(pid, SIGNAL)
    except ProcessLookupError:
        return False
    return True


def runs(slot: int, token: str) -> bool:
    """Whether this claim's body runs in that pool process."""
    return _board[_place(slot)[0]] == token.encode()
