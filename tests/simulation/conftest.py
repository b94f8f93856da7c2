"""A server for all worlds of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulation.ground import Ground, ground
from simulation.server import Server


@pytest.fixture(scope="session")
def simulation_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("simulation"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def on(simulation_server: Server) -> Iterator[Ground]:
    """Where a test's worlds stand, one after the other."""
    with ground(simulation_server.socket, db=15) as made:
        yield made
