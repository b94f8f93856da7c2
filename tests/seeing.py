"""The runs of tests/apps/seen.py, and a real Flower that watches them."""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench.children import Child, free_port

USER = "ada:secret of ada"


class Flower(Child):
    """Stock Flower with basic auth.

    Args:
        env: As of a worker of the test.
    """

    def __init__(self, app: str, *, folder: Path, env: dict[str, str], options: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        command = [
            sys.executable, "-m", "celery", "-A", app, "flower", "--address=127.0.0.1", f"--port={self.port}",
            f"--basic-auth={USER}", *options,
        ]  # fmt: skip
        super().__init__("flower", command, log=folder / "flower.log", env=env)

    def is_ready(self) -> bool:
        """It hears what workers say."""
        return "Connected to " in self.output(this_life=True) and self.get("/healthcheck")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(USER.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError as error:
            return 0, str(error)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """What it knows of tasks, by their ids."""
        code, body = self.get("/api/tasks?limit=1000")
        return json.loads(body) if code == 200 else {}
