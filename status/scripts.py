"""Loads the Lua transitions and calls them, whatever a failover made Redis forget."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from hiredis import pack_command
from redis import Redis
from redis.exceptions import ConnectionError, NoScriptError, ResponseError, TimeoutError  # noqa: A004  # redis' own

#: The transitions of one run; they share the prelude `_run.lua`.
RUN_SCRIPTS = frozenset(
    {
        "submit", "open_join", "begin", "finish", "fire", "complete", "cancel", "vouch", "release", "park", "repair",
        "abandon", "retry", "resolve", "child", "told",
        "enter", "leaving", "turn_down",
    }
)  # fmt: skip

#: What some of them share beside the prelude.
ALSO = {"complete": "_end", "abandon": "_end"}


@cache
def source(name: str) -> str:
    """The text of a transition, prelude included."""
    folder = files("status") / "lua"
    parts = ["_run", ALSO.get(name, ""), name] if name in RUN_SCRIPTS else [name]
    return "".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts if part)


@cache
def digest(name: str) -> str:
    """What Redis knows a transition by."""
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest()


class Scripts:
    """Calls transitions on one Redis.

    Args:
        redis: A client with `decode_responses=True`.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._mine = threading.local()

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a transition; load it first if this server does not know it (new, restarted or failed over).

        Raises:
            RedisError: Redis does not answer, or refuses to write.
        """
        try:
            return self._evalsha(name, keys, args)
        except NoScriptError:
            # EVAL both runs it and makes it known. The arguments carry their token: had the first call
            # been executed after all, this one would get the same answer.
            return self._redis.eval(source(name), len(keys), *keys, *args)

    def _evalsha(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        # Over a connection that this thread keeps: redis-py's own way through its pool costs more than the
        # script. If the connection breaks, its own way is taken after all, with its retries.
        connection = None
        try:
            connection = self._connection()
            connection.send_packed_command([pack_command(("EVALSHA", digest(name), len(keys), *keys, *args))])
            return connection.read_response()
        except (ConnectionError, TimeoutError, OSError):
            if connection is not None:
                connection.disconnect()
            return self._redis.evalsha(digest(name), len(keys), *keys, *args)
        except ResponseError:
            raise
        except BaseException:
            # The answer is still on its way (an exception from a signal handler): nobody else may read it.
            if connection is not None:
                connection.disconnect()
            raise

    def _connection(self) -> Any:
        if getattr(self._mine, "pid", None) != os.getpid():
            self._mine.pid, self._mine.connection = os.getpid(), self._redis.connection_pool.make_connection()
        return self._mine.connection
