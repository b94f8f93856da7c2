"""The embedded Valkey: one server a data dir, found or started by whoever comes first.

Two files beside the data say who is there. `server.lock` is locked (flock) from before the server
starts until it is gone: its starter takes the lock and the server inherits it. `server.port` says
where it listens; it may be stale, so whoever reads it asks the server which data it serves.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from status.embedded_process import HOST, ServerProcess, binary
from status.errors import ConfigError

#: Tried first, then its neighbours: below the range from which the system gives ports to outgoing
#: connections, so that a server that died finds its port free again. Never 6379, where a Redis that
#: somebody installed may come up at any time.
PORTS = range(16379, 16479)

#: A start takes 0.1 s; reading back a large append-only file takes longer.
START_DEADLINE_S = 60.0

#: A server on this machine that is silent this long is not ours, or is hung.
ANSWER_DEADLINE_S = 2.0

#: How often a server that is starting, or stopping, is looked at.
POLL_S = 0.02

_started: dict[Path, ServerProcess] = {}


def ensure(data_dir: Path, *, deadline_s: float = START_DEADLINE_S) -> str:
    """The URL of the server on `data_dir`/valkey, started if nobody runs it yet.

    A server that this call started ends with this process (see `stop`).

    Raises:
        ConfigError: The directory can't be used, there is no server binary, or the server did not come
            up in `deadline_s` seconds (the end of its log is in the message).
    """
    home = _make_home(data_dir)
    deadline = time.monotonic() + deadline_s
    while True:
        port = remembered_port(home)
        if port is not None and serves(port, home):
            return url_of(port)
        with _try_lock(home) as lock_fd:
            if lock_fd is not None:
                return url_of(_start(home, preferred=port, lock_fd=lock_fd, deadline=deadline).port)
        # Somebody else is starting it, or one that was told to stop still writes to its files.
        if time.monotonic() > deadline:
            raise ConfigError(
                f"a server holds {home / 'server.lock'} and did not answer in {deadline_s} s; "
                f"see {home / 'server.log'}, end that process, or set REDIS_URL to another server"
            )
        time.sleep(POLL_S)


def running(data_dir: Path) -> str | None:
    """The URL of the server on `data_dir`/valkey, if one runs."""
    home = data_dir.resolve() / "valkey"
    port = remembered_port(home)
    return url_of(port) if port is not None and serves(port, home) else None


def started_here(data_dir: Path) -> ServerProcess | None:
    """The server on `data_dir` that this process started last, alive or not."""
    server = _started.get(data_dir.resolve() / "valkey")
    return server if server is not None and server.mine else None


def stop() -> None:
    """Stop what this process started, and wait for it. Runs by itself at exit."""
    for home, server in list(_started.items()):
        if server.mine:
            server.stop()
            del _started[home]


def url_of(port: int) -> str:
    """The URL of a server of ours."""
    return f"redis://{HOST}:{port}/0"


def serves(port: int, home: Path) -> bool:
    """Whether the server at `port` answers and keeps its data in `home`."""
    # No retries: "nobody there" is the usual answer here, and a good one.
    client = Redis(
        host=HOST,
        port=port,
        socket_timeout=ANSWER_DEADLINE_S,
        socket_connect_timeout=ANSWER_DEADLINE_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
        folder = client.config_get("dir").get("dir")
    except (RedisError, OSError, ValueError):
        # Nobody there, not ready yet, or a stranger on a port that was ours once: either way, no.
        return False
    finally:
        client.close()
    # The client reads bytes that are no UTF-8 in this way; a folder may well have such a name.
    return folder == os.fsencode(home).decode(errors="replace")


def remembered_port(home: Path) -> int | None:
    """Where the last server on `home` listened, if that is known."""
    try:
        text = (home / "server.port").read_text().strip()
    except FileNotFoundError:
        return None
    port = int(text) if text.isdecimal() else 0
    return port if 0 < port < 65536 else None


def _make_home(data_dir: Path) -> Path:
    home = data_dir.resolve() / "valkey"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the data folder {home} can't be made: {error.strerror}; "
            "set CELERIAC_DATA_DIR to a folder that can be written"
        ) from error
    return home


@contextmanager
def _try_lock(home: Path) -> Iterator[int | None]:
    """The lock on the data as an open file, or None if a server or its starter has it."""
    try:
        lock_fd = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{home} can't be written: {error.strerror}; "
            "set CELERIAC_DATA_DIR to a folder of your own, or REDIS_URL to a running server"
        ) from error
    try:
        yield lock_fd if _locked(lock_fd) else None
    finally:
        # Closing is not unlocking: a server that was started meanwhile has the same open file.
        os.close(lock_fd)


def _locked(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(home: Path, *, preferred: int | None, lock_fd: int, deadline: float) -> ServerProcess:
    program = binary()
    for port in _free_ports(home, preferred):
        server = ServerProcess(program, home=home, port=port, lock_fd=lock_fd)
        # Written before it is ready, so that it can be found even if this process dies right now.
        _remember(home, port)
        if _wait_ready(server, home, deadline):
            _keep_until_exit(home, server)
            return server
        failed = "gave no answer" if server.exit_code is None else f"ended with exit code {server.exit_code}"
        server.stop()
        tail = server.log_tail()
        if os.strerror(errno.EADDRINUSE) not in tail:
            raise ConfigError(
                f"the embedded Valkey on {home} {failed} before it was ready; it said:\n{tail}\n"
                "Mend that, set CELERIAC_DATA_DIR to another folder, or REDIS_URL to a running server."
            )
    raise ConfigError(
        f"no free port for the embedded Valkey in {PORTS.start}-{PORTS.stop - 1}; set REDIS_URL to a running server"
    )


def _free_ports(home: Path, preferred: int | None) -> Iterator[int]:
    """Ports that are free now. The first is where the last server was: others may still look there."""
    # Each folder begins elsewhere: who still looks for a server that has gone must not find another folder's.
    own = crc32(str(home).encode()) % len(PORTS)
    if preferred is not None and preferred != 6379 and _is_free(preferred):
        yield preferred
    for port in (*PORTS[own:], *PORTS[:own]):
        if port != preferred and _is_free(port):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: connections of the last one that are still closing don't matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _remember(home: Path, port: int) -> None:
    # Renamed into place: a reader sees the old port or the new one, never half a number.
    fresh = home / "server.port.new"
    fresh.write_text(f"{port}\n")
    fresh.replace(home / "server.port")


def _wait_ready(server: ServerProcess, home: Path, deadline: float) -> bool:
    while time.monotonic() < deadline:
        if server.ended.wait(POLL_S):
            return False
        if serves(server.port, home):
            return True
    return False


def _keep_until_exit(home: Path, server: ServerProcess) -> None:
    if not _started:
        atexit.unregister(stop)
        atexit.register(stop)
    _started[home] = server
