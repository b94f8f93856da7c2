"""Who sends messages to runs: each message gets a number, by which it is known when it is sent again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from uuid import uuid4


class Sender:
    """Numbers its messages; has one on its way at a time."""

    def __init__(self) -> None:
        self._id = uuid4().hex
        self._numbers = count(1)

    def token(self) -> str:
        """Of its next message."""
        return f"{self._id}.{next(self._numbers)}"


class Senders:
    """The senders of a process: as many as it has messages on their way at once."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._free: deque[Sender] = deque()

    @contextmanager
    def token(self) -> Iterator[str]:
        """A token for one message, whose sender is nobody else's until the block is left."""
        if self._pid != os.getpid():  # a child must not go on with the numbers of its parent
            self._pid, self._free = os.getpid(), deque()
        free = self._free
        try:
            sender = free.pop()
        except IndexError:
            sender = Sender()
        try:
            yield sender.token()
        finally:
            free.append(sender)


#: Of this process.
senders = Senders()
