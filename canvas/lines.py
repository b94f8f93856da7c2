"""Where a suspended workflow stands, for people."""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePath
from types import FrameType
from typing import Any

#: Code of these is not what somebody looks for.
OURS = frozenset({"canvas", "saga"})


def line_of(coro: Any) -> str:
    """File and line of the await at which a coroutine stands: the innermost that is not celeriac's own."""
    found: FrameType | None = None
    while (frame := getattr(coro, "cr_frame", None)) is not None:
        if found is None or str(frame.f_globals.get("__name__", "")).partition(".")[0] not in OURS:
            found = frame
        coro = coro.cr_await
    return f"{_short(found.f_code.co_filename)}:{found.f_lineno}" if found else ""


@lru_cache(maxsize=1024)
def _short(filename: str) -> str:
    """A file with the folder it is in: enough to find it, and the same on every machine."""
    return "/".join(PurePath(filename).parts[-2:])
