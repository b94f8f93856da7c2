"""For pytest: `pytest_plugins = ["canvas.testing.fixtures"]` in the top `conftest.py` gives tests `workflows`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from canvas.testing.workflows import Workflows


@pytest.fixture
def celeriac_app() -> Any:
    """The app whose workflows are tested; override it to return yours. None: the current one."""
    return None


@pytest.fixture
def workflows(celeriac_app: Any, request: pytest.FixtureRequest) -> Iterator[Workflows]:
    """An open `Workflows` on `celeriac_app`."""
    failed = request.session.testsfailed
    with Workflows(celeriac_app) as flows:
        yield flows
        if request.session.testsfailed > failed:
            flows.close()  # what a test that broke off has not used says nothing
