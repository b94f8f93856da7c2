"""The store of this process: found once, shared by all that ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import redis
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from status.errors import StoreUnavailable
from status.models import Entered
from status.places import places, running, without_password
from status.reading import Reader
from status.records import Claim, Ending
from status.settings import Settings
from status.store import Store

#: A server that says nothing for so long is gone. Longer than any blocking read (`reading.BLOCK_MS`).
SOCKET_TIMEOUT_S = 15

#: A person who waits for a prompt wants to hear sooner than a worker does that nobody answers.
PROMPT_TIMEOUT_S = 2

#: A restart of Redis, a second or so, is nothing that anybody need hear of.
RETRIES = 6

_lock = threading.Lock()
_url: str | None = None
_given: Store | None = None
_cancel: Callable[[str, str], object] | None = None
_wake: Callable[[str, Sequence[Claim]], object] | None = None
_follow: Callable[[str, Ending], object] | None = None
_check_value: Callable[[str, str, str], object] | None = None

_describe_value: Callable[[str, str], Mapping[str, Any] | None] | None = None

#: Each is asked what a run has entered and nobody has undone; sagas register themselves.
owed: list[Callable[[str], Sequence[str]]] = []

#: Each is asked whether it knows what a run has entered, and that nothing of it is owed any more.
settled: list[Callable[[str], bool]] = []
#: What an operator may do about what a run still owes (`retry`, `skip`, `abort`): called with run id, keys of entries,
#: reason and who asks; gives the id of the run that does it. Sagas register themselves.
undo_acts: dict[str, Callable[[str, Sequence[str], str, str], str]] = {}

#: Each is asked what a run has entered in sagas, whatever became of it; sagas register themselves.
entered: list[Callable[[str], Sequence[Entered]]] = []


def use(redis_url: str | None) -> None:
    """Say where the runs of this process are; None: where `places()` says."""
    global _url  # noqa: PLW0603  # one place a process is the point
    with _lock:
        _url = redis_url


def cancel_with(cancel: Callable[[str, str], object]) -> None:
    """Say how runs are cancelled by this process: who can reach the workers tells it at start.

    Args:
        cancel: Called with run id and reason; raises RunNotFound.
    """
    global _cancel  # noqa: PLW0603
    with _lock:
        _cancel = cancel


def wake_with(wake: Callable[[str, Sequence[Claim]], object]) -> None:
    """Say how this process lets workers know that a run owes a turn, and that claims are to be stopped.

    Args:
        wake: Called with run id and claims.
    """
    global _wake  # noqa: PLW0603
    with _lock:
        _wake = wake


def wake(run_id: str, stop: Sequence[Claim] = ()) -> None:
    """Let workers know of a run at once; without an app, their sweep finds it in a few seconds."""
    if _wake is not None:
        _wake(run_id, stop)


def follow_with(follow: Callable[[str, Ending], object]) -> None:
    """Say how this process sends and stops what a transition asks for.

    Args:
        follow: Called with run id and what the transition said.
    """
    global _follow  # noqa: PLW0603
    with _lock:
        _follow = follow


def follow(run_id: str, ending: Ending) -> None:
    """Send and stop what a transition asks for; without an app, the workers' sweep does in a few seconds."""
    if _follow is not None:
        _follow(run_id, ending)


def check_values_with(check: Callable[[str, str, str], object]) -> None:
    """Say how this process finds out what type a run wants of a promise or a message.

    Args:
        check: Called with run id, what it is for (`promise approval`, `channel jobs`) and a value as JSON; raises
            PayloadError if it does not fit.
    """
    global _check_value  # noqa: PLW0603
    with _lock:
        _check_value = check


def check_value(run_id: str, name: str, text: str) -> None:
    """Refuse a value that does not fit the promise or channel, where that is known.

    Raises:
        PayloadError: It does not.
    """
    if _check_value is not None:
        _check_value(run_id, name, text)


def describe_values_with(describe: Callable[[str, str], Mapping[str, Any] | None]) -> None:
    """Say how this process finds out what a run wants of a promise, for a form.

    Args:
        describe: Called with run id and promise; gives a JSON schema, or None if it is not known.
    """
    global _describe_value  # noqa: PLW0603
    with _lock:
        _describe_value = describe


def describe_value(run_id: str, name: str) -> Mapping[str, Any] | None:
    """The JSON schema of what a run wants of a promise; None: it is not known here."""
    return _describe_value(run_id, name) if _describe_value is not None else None


def canceller() -> Callable[[str, str], object] | None:
    """What `cancel_with` was given; None: this process knows no app."""
    return _cancel


def store() -> Store:
    """The transitions.

    Raises:
        ConfigError: A setting is wrong, or this Redis was used with another number of shards.
    """
    return _given or _store(_url or places().redis_url)


@contextmanager
def standing_in(other: Store) -> Iterator[None]:
    """In this block, `other` is the store of this process, and what was said of how to reach workers is put aside."""
    global _given, _cancel, _wake, _follow, _check_value  # noqa: PLW0603
    with _lock:
        before = _given, _cancel, _wake, _follow, _check_value
        _given = other
    try:
        yield
    finally:
        with _lock:
            _given, _cancel, _wake, _follow, _check_value = before


def reader() -> Reader:
    """The status of runs."""
    found = store()
    return Reader(found.redis, found.keys)


def connect(redis_url: str, *, timeout_s: float = SOCKET_TIMEOUT_S, retries: int = RETRIES) -> Redis:
    """A client that gives text and keeps its connections alive.

    Args:
        timeout_s: To connect, and for each answer.
        retries: How often a command is sent again when its connection breaks. Every transition carries a token,
            so that it may be.
    """
    return Redis.from_url(
        redis_url,
        decode_responses=True,
        health_check_interval=30,
        socket_keepalive=True,
        socket_timeout=timeout_s,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries),
        **_version_told(),
    )


@cache
def _version_told() -> dict[str, Any]:
    """What later redis-pys say of themselves to a server. Made once: for each connection that is not told they look for
    their version among all installed packages, which takes longer than to connect; and each thread has a connection.
    """
    made = getattr(redis, "DriverInfo", None)
    return {} if made is None else {"driver_info": made()}


def check() -> None:
    """Ask Redis whether it is there, before anything is begun.

    Raises:
        StoreUnavailable: It does not answer within `PROMPT_TIMEOUT_S`.
        ConfigError: It can't be found out where it is.
    """
    url = _url or places().redis_url
    try:
        with connect(url, timeout_s=PROMPT_TIMEOUT_S, retries=0) as redis:
            redis.ping()
    except RedisError as error:
        raise StoreUnavailable(
            f"Redis at {where()} does not answer ({error}): start it, or set REDIS_URL to one that runs"
        ) from error


@cache
def _store(redis_url: str) -> Store:
    made = Store(connect(redis_url), Settings.from_environment())
    made.check_layout()
    return made


def address() -> str:
    """The URL of the Redis where the runs are, with its password.

    Raises:
        ConfigError: It can't be found out.
    """
    return _url or places().redis_url


def known_address() -> str | None:
    """The URL of the Redis where the runs are, or None: no server is started to find out.

    Raises:
        ConfigError: REDIS_URL is malformed.
    """
    return _url or running()


def where() -> str:
    """Where the runs are, without the password."""
    return without_password(_url or places().redis_url)
