"""The embedded Valkey in the hands of `celery up`: watched, brought back when it dies, stopped last."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from canvas.supervisor import Backoff, describe_exit
from status import embedded
from status.errors import ConfigError
from status.places import Places, places, reset

NAME = "valkey"

#: The kernel answers for a server of this machine, busy or not.
CONNECT_S = 5.0

#: Between the end of its connections and the end of the process it writes its files.
EXIT_S = 1.0


class ServerWatch:
    """Keeps a server there for the workers, whoever started the present one.

    Args:
        place: Where the workers look for it.
        say: Called with a name and a line, from a thread of the watch.
        on_moved: Called, from that thread, with the new places if the port was lost meanwhile.
    """

    def __init__(self, place: Places, *, say: Callable[[str, str], None], on_moved: Callable[[Places], None]) -> None:
        self._place = place
        self._say = say
        self._on_moved = on_moved
        self._backoff = Backoff()
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="valkey-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        started = embedded.started_here(self._place.data_dir)
        how = f"runs (pid {started.pid})" if started else "ran already, for another process"
        self._say(NAME, f"{how} at {self._place.redis_url}, data in {self._place.data_dir / 'valkey'}")
        self._thread.start()

    def stop(self) -> None:
        """Stop the server if this process started it; leave it to its owner otherwise."""
        self._stopping.set()
        watched = self._socket
        if watched is not None:
            with contextlib.suppress(OSError):  # it was closed meanwhile, which is as good
                watched.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        started = embedded.started_here(self._place.data_dir)
        if started is None:
            self._say(NAME, "stays, for the process that started it")
            return
        self._say(NAME, "is told to stop")
        embedded.stop()
        self._say(NAME, f"stopped with {describe_exit(started.exit_code)}")

    def _run(self) -> None:
        while not self._stopping.is_set():
            since_s = time.monotonic()
            self._wait_for_its_end()
            if not self._stopping.is_set():
                self._bring_back(lived_s=time.monotonic() - since_s)

    def _wait_for_its_end(self) -> None:
        """Return when the server is not there, or when `stop` is called."""
        parts = urlsplit(self._place.redis_url)
        try:
            with socket.create_connection((parts.hostname, parts.port), timeout=CONNECT_S) as watched:
                watched.settimeout(None)
                self._socket = watched
                # It has nothing to say to a client that asks nothing: this returns when it is gone,
                # be it a child of ours (which could be waited for) or of another process.
                while not self._stopping.is_set() and watched.recv(1024):
                    pass
        except OSError:
            # Refused or reset: it is not there, which is what this waits for.
            return
        finally:
            self._socket = None

    def _bring_back(self, *, lived_s: float) -> None:
        self._tell_of_its_end()
        while not self._stopping.wait(self._backoff.next_wait_s(lived_s=lived_s)):
            lived_s = 0.0
            reset()
            try:
                place = places()
            except ConfigError as error:
                self._say(NAME, f"can't be started again, tried again soon: {error}")
                continue
            self._say(NAME, f"is there again at {place.redis_url}")
            if place.redis_url != self._place.redis_url:
                self._on_moved(place)
            self._place = place
            return

    def _tell_of_its_end(self) -> None:
        started = embedded.started_here(self._place.data_dir)
        if started is None:
            self._say(NAME, "was stopped by the process that started it; it is started again")
        elif started.ended.wait(EXIT_S):
            self._say(NAME, f"died with {describe_exit(started.exit_code)}; it is started again")
        else:
            self._say(NAME, "closed its connection; it is looked for again")
