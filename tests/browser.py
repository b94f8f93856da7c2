"""A browser before a real Flower: what tests of its pages share."""

from __future__ import annotations

import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

from bench.children import Child, Valkey, free_port

ROOT = Path(__file__).parents[1]

#: Where screenshots go; git ignores it.
SHOTS = ROOT / ".shots"

#: On a loaded machine a page may take its time.
PATIENCE_MS = 20_000

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

#: `visit(path, width=…, dark=…, user=…)` opens a page.
Open = Callable[..., Page]


def chromium_path() -> str | None:
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


class Flower(Child):
    """`celery -A gallery flower`, as a user starts it."""

    def __init__(self, log: Path, env: dict[str, str], *options: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "celery", "-A", "gallery", "flower"]
        super().__init__(
            f"flower-{self.port}",
            [*command, "--address=127.0.0.1", f"--port={self.port}", *options],
            log=log / f"flower-{self.port}.log",
            env=env,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=2):  # noqa: S310
                return True
        except urllib.error.HTTPError:
            return True  # it answers, if only that one must sign in
        except OSError:
            return False


@dataclass
class Stage:
    """What is played on: a worker, and Flowers beside it."""

    env: dict[str, str]
    folder: Path
    valkey: Valkey
    flower: Flower  #: as it comes
    guarded: Flower  #: with users and below a prefix


def shoot(page: Page, name: str, *, full: bool = False) -> Path:
    """Keep a picture of the page, for whoever wants to look."""
    SHOTS.mkdir(exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=full)
    return path
