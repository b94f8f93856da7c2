"""Loads the Lua transitions and calls them, whatever a failover made Redis forget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

#: The transitions of one run; they share the prelude `_run.lua`.
RUN_SCRIPTS = frozenset(
    {
        "submit", "open_join", "begin", "finish", "fire", "complete", "cancel", "vouch", "release", "park", "repair",
    }
)  # fmt: skip


@cache
def source(name: str) -> str:
    """The text of a transition, prelude included."""
    folder = files("status") / "lua"
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    if name in RUN_SCRIPTS:
        return (folder / "_run.lua").read_text(encoding="utf-8") + text
    return text


@cache
def digest(name: str) -> str:
    """What Redis knows a transition by."""
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def call(redis: Redis, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Run a transition; load it first if this server does not know it (new, restarted or failed over)."""
    try:
        return redis.evalsha(digest(name), len(keys), *keys, *args)
    except NoScriptError:
        # EVAL both runs it and makes it known. The arguments carry their token: had the first call
        # been executed after all, this one would get the same answer.
        return redis.eval(source(name), len(keys), *keys, *args)
