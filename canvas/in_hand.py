"""What keeps a worker's pool processes from taking turns themselves, as its parent tells them.

A pool process may go on with the next run's turn (see `canvas.next_turns`) only while nothing else waits for it. What
the parent has taken from the broker already it can't see there.
"""

from __future__ import annotations

import mmap

# Made before the pool forks, so that parent and children share it.
_board = mmap.mmap(-1, 3)
_OTHERS, _STOPS, _LIMITS = 0, 1, 2


def tell(others: int) -> None:
    """So many messages are in hand that are no turns, or were sent again."""
    _board[_OTHERS] = min(others, 255)


def starts() -> None:
    """The worker begins: it has nothing yet."""
    _board[_OTHERS] = _board[_STOPS] = _board[_LIMITS] = 0


def stops(**_: object) -> None:
    """The worker was told to stop: nobody begins anything more."""
    _board[_STOPS] = 1


def limits(some: bool) -> None:
    """Whether a workflow has been given a limit (`celery control rate_limit`), of which only the parent knows."""
    _board[_LIMITS] = int(some)


def only_turns() -> bool:
    """Whether the worker goes on, and nothing but turns is in its hand, which have no limits."""
    return not _board[_OTHERS] and not _board[_STOPS] and not _board[_LIMITS]
