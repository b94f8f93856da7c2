"""Where Redis and SQL are: the one answer for workers, the command line, tests and Flower."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from status.errors import ConfigError

#: What the broker, the result backend and the store all understand.
REDIS_SCHEMES = ("redis", "rediss")

_lock = threading.Lock()
_known: Places | None = None


def _usual_folder() -> Path:
    return Path(".data")


_folder: Callable[[], Path] = _usual_folder

#: Called when the places of this process change: who keeps something open there lets it go.
on_change: list[Callable[[], None]] = []


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where this process finds what it needs.

    Attributes:
        redis_url: Broker, results and runs.
        database_url: The shop and the saga log, as SQLAlchemy wants it.
        data_dir: Absolute; where the embedded defaults keep their files.
        embedded: Whether Redis is the embedded Valkey.
    """

    redis_url: str
    database_url: str
    data_dir: Path
    embedded: bool


def places() -> Places:
    """The places of this process, looked for (and the embedded server started) at the first call.

    `REDIS_URL` and `DATABASE_URL` are taken as they are. Without the one there is a Valkey with its data
    under `.data/valkey`, without the other a SQLite file `.data/shop.db`; `CELERIAC_DATA_DIR` is a folder
    to use in place of `.data`.

    Raises:
        ConfigError: An URL or the folder can't be used, or the embedded server does not start.
    """
    global _known  # noqa: PLW0603  # one answer a process is the point
    with _lock:
        if _known is None:
            _known = _look()
        return _known


def keep_files_in(folder: Callable[[], Path]) -> None:
    """Say where the embedded defaults of this process keep their files, where no variable does.

    Args:
        folder: Asked when they are first needed.
    """
    global _folder  # noqa: PLW0603
    _folder = folder


def running() -> str | None:
    """The URL of the Redis that `places()` would give, if that needs no server to be started; else None.

    Raises:
        ConfigError: REDIS_URL is malformed.
    """
    redis_url = os.environ.get("REDIS_URL", "")
    if redis_url:
        return _checked_redis(redis_url)
    from status import embedded  # noqa: PLC0415

    return embedded.running(_data_dir())


def reset() -> None:
    """Forget the answer: the next call looks again, and starts a server if there is none any more."""
    global _known  # noqa: PLW0603
    with _lock:
        _known = None


@contextmanager
def standing_in(other: Places) -> Iterator[None]:
    """In this block, `other` are the places of this process."""
    global _known  # noqa: PLW0603
    before = _known
    _known = other
    try:
        yield
    finally:
        for let_go in on_change:
            let_go()
        _known = before


def revive() -> None:
    """Start the embedded server again at its old address, if the process that ran it has ended.

    For those who stay: workers. Nothing happens where `REDIS_URL` says where Redis is.

    Raises:
        ConfigError: It does not start, or its port is taken by now; this process has to be restarted.
    """
    with _lock:
        if _known is None or not _known.embedded:
            return
        url = _embedded_url(_known.data_dir)
        if url != _known.redis_url:
            raise ConfigError(
                f"the embedded server is at {url} now, this process still looks for it at {_known.redis_url}: "
                "restart it"
            )


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"(?<=://)[^/@]*@", "***@", url)


def _look() -> Places:
    data_dir = _data_dir()
    redis_url = os.environ.get("REDIS_URL", "")
    # SQL first: a wrong URL should not leave a server behind that was started for nothing.
    database_url = _database_url(data_dir)
    return Places(
        redis_url=_checked_redis(redis_url) if redis_url else _embedded_url(data_dir),
        database_url=database_url,
        data_dir=data_dir,
        embedded=not redis_url,
    )


def _data_dir() -> Path:
    chosen = os.environ.get("CELERIAC_DATA_DIR")
    return (Path(chosen) if chosen else _folder()).expanduser().resolve()


def _embedded_url(data_dir: Path) -> str:
    # Here and not above: with a REDIS_URL nothing of it is needed (and it needs a Unix).
    from status import embedded  # noqa: PLC0415

    return embedded.ensure(data_dir)


def _checked_redis(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in REDIS_SCHEMES or not parts.hostname:
        raise ConfigError(
            f"REDIS_URL={without_password(url)} is not the address of a Redis; write redis://host:6379/0 "
            "(rediss:// with TLS), or leave it out for the embedded server"
        )
    try:
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"REDIS_URL={without_password(url)} has no valid port: {error}") from error
    return url


def _database_url(data_dir: Path) -> str:
    url = os.environ.get("DATABASE_URL", "")
    return _checked_database(url) if url else _sqlite_url(data_dir)


def _checked_database(url: str) -> str:
    from sqlalchemy.engine import make_url  # noqa: PLC0415  # 0.2 s that the default has no use for
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    try:
        make_url(url).get_dialect()
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(
            f"DATABASE_URL={without_password(url)} can't be used ({error}); write "
            "postgresql+psycopg://user:password@host/name or sqlite:////absolute/path.db, "
            "or leave it out for a SQLite file"
        ) from error
    return url


def _sqlite_url(data_dir: Path) -> str:
    if "?" in str(data_dir):
        raise ConfigError(
            f"the data folder {data_dir} has a '?' in its path, which ends the path in a database URL; "
            "set CELERIAC_DATA_DIR or DATABASE_URL"
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the data folder {data_dir} can't be made: {error.strerror}; "
            "set CELERIAC_DATA_DIR to a folder that can be written"
        ) from error
    return f"sqlite:///{data_dir}/shop.db"
