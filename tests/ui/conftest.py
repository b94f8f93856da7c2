"""A real browser before a real Flower, with a worker and a Valkey of their own: one of each a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from apps import gallery
from bench.children import Valkey, Worker
from browser import FLAGS, PATIENCE_MS, ROOT, Flower, Open, Stage, chromium_path
from processes import client_of


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium, or say where one is with CHROMIUM=")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def stage(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("ui")
    with ExitStack() as stack:
        valkey = Valkey(folder)
        valkey.start()
        stack.callback(valkey.stop)
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "apps")])
        env = {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": f"sqlite:///{folder / 'shop.db'}",
            "CELERIAC_DATA_DIR": str(folder),
            "PYTHONPATH": paths,
        }
        worker = Worker("gallery", log=folder / "worker.log", env=env, pool="threads", concurrency=8)
        flower = Flower(folder, env)
        guarded = Flower(folder, env, "--basic-auth=ada:lovelace", "--url-prefix=ops")
        for child in (worker, flower, guarded):  # together: each takes seconds
            child.launch()
            stack.callback(child.stop)
        for child in (worker, flower, guarded):
            child.wait(child.is_ready, "was not ready", 60)
        stack.enter_context(client_of(gallery.app, valkey.url))
        yield Stage(env, folder, valkey, flower, guarded)


@pytest.fixture
def console() -> list[str]:
    """What the pages of this test said on their consoles; a test that provokes an error takes it out."""
    return []


@pytest.fixture
def visit(chromium: Browser, stage: Stage, console: list[str]) -> Iterator[Open]:
    """Opens a page of Flower; after the test: none had an error to tell."""
    said = console
    contexts = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            said.append(f"{message.type}: {message.text}")

    def open_page(
        path: str = "/workflows",
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        user: tuple[str, str] | None = None,
        url: str | None = None,
        status: int = 200,
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            http_credentials={"username": user[0], "password": user[1]} if user else None,
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        answer = page.goto((url or stage.flower.url) + path)
        assert answer is not None
        assert answer.status == status
        page.on("console", heard)  # from now on: that a page is not there is said before, where it is asked for
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
