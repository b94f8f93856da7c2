"""Loads the Lua transitions and calls them, whatever a failover made Redis forget."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from hiredis import pack_command
from redis import Redis
from redis.exceptions import (
    ConnectionError,  # noqa: A004  # redis' own
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from status.keys import Keys

logger = logging.getLogger("celeriac")

_RUN_ID = re.compile(r"^run_id:(\w+)", re.MULTILINE)

#: The transitions of one run; they share the prelude `_run.lua`.
RUN_SCRIPTS = frozenset(
    {
        "submit", "open_join", "begin", "finish", "fire", "complete", "cancel", "vouch", "release", "park", "repair",
        "abandon", "retry", "operator", "amend", "restart", "resolve", "send", "child", "told",
        "enter", "leaving", "turn_down", "reassert", "stage", "resent", "read", "give_back", "advance", "lapse",
    }
)  # fmt: skip

#: The transitions that `advance` makes, one after the other.
TOGETHER = ("finish", "give_back", "pass", "open_join", "complete")

#: Those that move no part go without `_join.lua`: each call of a script makes its functions anew.
MOVE_NO_PART = frozenset(
    {
        "submit", "complete", "restart", "vouch", "park", "repair", "retry", "operator", "amend", "child", "told",
        "leaving", "turn_down", "stage", "resent", "read", "lapse",
    }
)  # fmt: skip

#: Those that may count something, and those that move parts, as any of those may have to.
COUNT = frozenset({"submit", "complete", "resent", "restart"}) | (RUN_SCRIPTS - MOVE_NO_PART)

#: Those that end a run or a phase, and count how long it took.
TAKE_TIMES = frozenset({"complete", "abandon", "open_join", "advance", "restart"})

#: Those that give a turn the journal.
GIVE_JOURNAL = frozenset({"finish", "read", "advance"})

#: Those that end a run.
END_RUNS = frozenset({"complete", "abandon", "advance"})


@cache
def source(name: str) -> str:
    """The text of a transition, prelude included."""
    parts = [name]
    if name in RUN_SCRIPTS:
        joins = [] if name in MOVE_NO_PART else ["_batch", "_join"]
        counts = ["_count"] if name in COUNT else []
        counts += ["_figures"] if name in TAKE_TIMES else []
        journal = ["_journal"] if name in GIVE_JOURNAL else []
        parts = ["_run", *counts, *joins, *journal, *(["_end"] if name in END_RUNS else [])]
        parts += [*(TOGETHER if name == "advance" else ()), name]
    # A whole transition beside others is a function, and its arguments are the function's.
    return "".join(
        f"local function {part}(ARGV)\n{_text(part)}end\n" if part in TOGETHER and part != name else _text(part)
        for part in parts
    )


def _text(part: str) -> str:
    return (files("status") / "lua" / f"{part}.lua").read_text(encoding="utf-8")


@cache
def digest(name: str) -> str:
    """What Redis knows a transition by."""
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest()


class Scripts:
    """Calls transitions on one Redis.

    Args:
        redis: A client with `decode_responses=True`.
        keys: Of its shards.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._mine = threading.local()
        self._met = ""  # the run id of the server whose shards know of it

    def call(
        self, name: str, keys: Sequence[str], args: Sequence[Any], meanwhile: Callable[[], object] | None = None
    ) -> Any:
        """Run a transition; load it first if this server does not know it (new, restarted or failed over).

        Sent again when its answer is lost: the arguments carry a token, and the same token gets the same answer.

        Args:
            meanwhile: Called when it is sent, each time: something to do until the answer comes.

        Raises:
            RedisError: Redis does not answer, or refuses to write.
        """
        try:
            return self._patiently(("EVALSHA", digest(name), len(keys), *keys, *args), meanwhile)
        except NoScriptError:
            # EVAL both runs it and makes it known.
            return self._patiently(("EVAL", source(name), len(keys), *keys, *args), meanwhile)

    def ask(self, *command: Any) -> Any:
        """A plain command, over the connection that this thread keeps.

        Raises:
            RedisError: Redis does not answer.
        """
        return self._patiently(command, None)

    def connect(self, within_s: float) -> None:
        """Connect this thread now rather than at its first call.

        Raises:
            RedisError: Redis does not answer.
        """
        connection = self._connection()
        if not connection.is_connected:
            usual_s, connection.socket_connect_timeout = connection.socket_connect_timeout, within_s
            try:
                connection.connect_check_health(check_health=False, retry_socket_connect=False)
            finally:
                connection.socket_connect_timeout = usual_s

    def _patiently(self, command: tuple[Any, ...], meanwhile: Callable[[], object] | None) -> Any:
        connection = self._connection()
        try:
            return self._send(connection, command, meanwhile)
        except (ConnectionError, TimeoutError, OSError):
            return connection.retry.call_with_retry(
                lambda: self._send(connection, command, meanwhile), lambda _error: connection.disconnect()
            )

    def _send(self, connection: Any, command: tuple[Any, ...], meanwhile: Callable[[], object] | None) -> Any:
        # Over a connection that this thread keeps: redis-py's own way through its pool costs more than the script.
        try:
            if not connection.is_connected:
                # Here and not in the middle of a command, where it would be tried as often again.
                connection.connect_check_health(check_health=False, retry_socket_connect=False)
            connection.send_packed_command([pack_command(command)])
            if meanwhile is not None:
                meanwhile()
            return connection.read_response()
        except ReadOnlyError:
            connection.disconnect()  # a replica, perhaps of late: the address may lead to the primary by now
            raise
        except ResponseError:
            raise
        except BaseException:
            # The answer is still on its way (an exception from a signal handler): nobody else may read it.
            connection.disconnect()
            raise

    def _connection(self) -> Any:
        if getattr(self._mine, "pid", None) != os.getpid():
            # Not by the pool, which would count those of threads that have ended, up to its limit.
            pool = self._redis.connection_pool
            self._mine.pid, self._mine.connection = os.getpid(), pool.connection_class(**pool.connection_kwargs)
            self._mine.connection.register_connect_callback(self._meet)
        return self._mine.connection

    def _meet(self, connection: Any) -> None:
        """A new connection, and nothing was asked over it: if it leads to a server not met before, say so first."""
        try:
            connection.send_command("INFO", "server")
            found = _RUN_ID.search(connection.read_response())
            if found is None or found[1] == self._met:
                return
            shards = [self._keys.of_server(shard) for shard in range(self._keys.shards)]
            for keys in shards:
                connection.send_command("EVAL", source("meet"), len(keys), *keys, found[1])
            graces = [connection.read_response() for _ in shards]
            if any(graces):
                logger.warning("Redis was restarted: for some seconds no step begins, what runs goes on")
            self._met = found[1]
        except BaseException:
            connection.disconnect()  # else the next command would go over a connection that has met nobody
            raise
