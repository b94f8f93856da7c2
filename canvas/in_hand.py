"""What a worker has in hand beside turns, as its parent process tells those of its pool.

A pool process may go on with the next run's turn (see `canvas.next_turns`) only while nothing else waits for it. What
the parent has taken from the broker already it can't see there.
"""

from __future__ import annotations

import mmap

# Made before the pool forks, so that parent and children share it.
_board = mmap.mmap(-1, 2)
_OTHERS, _STOPS = 0, 1


def tell(others: int) -> None:
    """So many messages are in hand that are no turns, or were sent again."""
    _board[_OTHERS] = min(others, 255)


def starts(**_: object) -> None:
    """The worker begins: it has nothing yet."""
    _board[_OTHERS] = _board[_STOPS] = 0


def stops(**_: object) -> None:
    """The worker was told to stop: nobody begins anything more."""
    _board[_STOPS] = 1


def only_turns() -> bool:
    """Whether the worker goes on, and nothing but turns is in its hand."""
    return not _board[_OTHERS] and not _board[_STOPS]
