"""The tab in Flower, without a Flower that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import flower
import pytest
from flower import urls
from flower.command import flower as flowers_own
from tornado.util import import_object
from tornado.web import RequestHandler

from status.flower.command import HANDLERS, install
from status.flower.command import flower as found
from status.flower.pages import Pages, with_entry, without_tables
from status.flower.views import difference

FLOWERS = Path(urls.settings["template_path"])
BAR = FLOWERS / "navbar.html"


def test_the_command_is_flowers_own_with_the_tab_in_front():
    assert found is flowers_own
    assert urls.handlers[: len(HANDLERS)] == HANDLERS
    assert isinstance(urls.settings["template_loader"], Pages)


def test_this_is_the_flower_that_the_tab_was_made_for():
    assert flower.__version__.startswith("2.2.")


def test_the_tab_is_put_in_once():
    handlers: list[Any] = []
    settings: dict[str, Any] = {"template_path": str(BAR.parent)}

    install(handlers, settings)
    install(handlers, settings)

    assert handlers == HANDLERS


@pytest.mark.parametrize("name", [name for _, name in HANDLERS])
def test_each_page_can_be_imported_by_its_name(name: str):
    assert issubclass(import_object(name), RequestHandler)


def test_flowers_bar_gets_one_entry_more():
    bar = BAR.read_text()

    mended = with_entry(bar)

    assert (bar.count("nav-item"), mended.count("nav-item")) == (7, 8)
    assert mended.index("Broker</a>") < mended.index("Workflows</a>") < mended.index("theme-toggle")


def test_a_bar_that_is_not_as_it_was_is_left_alone(caplog):
    assert with_entry("<nav>new</nav>") == "<nav>new</nav>"
    assert "the tab is at /workflows" in caplog.text


def test_flowers_frame_goes_without_what_its_tables_alone_need():
    frame = (FLOWERS / "base.html").read_text()

    assert re.findall(r"static_url\('(.*?)'", without_tables(frame)) == [
        "favicon.ico",
        "js/theme.js",
        "css/bootstrap.min.css",
        "css/flower.css",
        "js/bootstrap.bundle.min.js",
    ]


def test_flowers_other_pages_are_found_as_before():
    pages = Pages(str(BAR.parent))

    assert b"Worker" in pages.load("workers.html").code.encode()
    assert "wf-rows" in pages.load("workflows.html").code


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plugin_costs_each_celery_command_next_to_nothing():
    """It is imported at each of them; what it adds to Flower's own plugin and `runs` is counted in modules."""
    code = """
import sys
import flower.command, status.cli
before = set(sys.modules)
import status.flower.command
print(sorted(set(sys.modules) - before))
"""

    assert run_python(code).strip() == "['status.flower', 'status.flower.command', 'status.flower.pages']"


def test_without_flower_the_command_says_how_to_get_it():
    code = """
import sys
sys.modules["flower"] = None
from click.testing import CliRunner
from status.flower.command import flower
answer = CliRunner().invoke(flower, ["--port=1"])
print(answer.exit_code, answer.output)
"""

    assert run_python(code).startswith("1 Error: Flower is not installed: pip install")


def test_a_tab_that_does_not_fit_leaves_flower_as_it_is():
    code = """
from flower import urls
urls.settings.pop("template_path")
from flower.command import flower
import status.flower.command as command
print(command.flower is flower, len(urls.handlers))
"""

    assert run_python(code).split() == ["True", str(len(urls.handlers) - len(HANDLERS))]


# --- what a page is told ---------------------------------------------------------------


def part(place: str, state: str = "waiting") -> dict[str, Any]:
    return {"place": place, "state": state}


def model(*awaits: list[dict[str, Any]], state: str = "running", events: str = "") -> dict[str, Any]:
    return {
        "id": "r",
        "now_ms": 1,
        "head": {"state": state},
        "awaits": [{"n": n, "parts": parts} for n, parts in enumerate(awaits)],
        "events": list(events),
    }


def test_a_page_that_knows_nothing_is_told_all():
    whole = model([part("0.0")], events="ab")

    assert difference({}, whole) == whole | {"numbers": [0], "events_anew": True}


def test_nothing_new_is_nothing_but_the_time():
    whole = model([part("0.0")], events="ab")

    assert difference(whole, whole) == {"now_ms": 1}


def test_of_a_wide_await_only_the_parts_that_changed_are_told():
    before = model([part("0.0"), part("0.1")])
    after = model([part("0.0"), part("0.1", "done")])

    news = difference(before, after)

    assert news["awaits"] == [{"n": 0, "parts": [part("0.1", "done")], "places": ["0.0", "0.1"]}]
    assert news.keys() == {"now_ms", "awaits", "numbers"}


def test_new_events_are_added_and_all_told_again_when_the_oldest_are_dropped():
    assert difference(model(events="ab"), model(events="abc"))["events"] == ["c"]
    assert difference(model(events="ab"), model(events="bc")).items() >= {("events_anew", True)}


def test_an_await_that_a_retry_forgot_is_no_longer_among_the_numbers():
    news = difference(model([part("0.0")], [part("1.0")]), model([part("0.0")]))

    assert (news["awaits"], news["numbers"]) == ([], [0])
