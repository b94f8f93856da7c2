"""Ctrl-C, SIGTERM and a closed terminal, heard only where the demo can bear it.

An exception out of a signal handler may come anywhere, with a lock of a connection pool held: what is
stopped then hangs. So a signal is noted, and the demo looks for it between two orders and two reads.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):  # noqa: N818
    """Somebody wants the demo to end."""


class Stop:
    """Whether the demo is to end."""

    def __init__(self) -> None:
        self.asked = False
        self.hurry: Callable[[], None] | None = None  #: what a second signal does; safe in a handler

    def listen(self) -> None:
        """From now on signals are noted here. Only in the main thread."""
        for signum in SIGNALS:
            signal.signal(signum, self._note)

    def check(self) -> None:
        """Raise Interrupted if the demo is to end."""
        if self.asked:
            raise Interrupted

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        if self.asked and self.hurry is not None:
            self.hurry()
        if not self.asked:
            os.write(2, b"\nstopping ...\n")  # not print: its buffer may be locked by what was interrupted
        self.asked = True
