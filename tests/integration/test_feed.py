"""What open pages are told: by one thread, of what they show, and after trouble all of it anew."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from apps import gallery
from bench.filling import Filler
from processes import client_of
from status.browsing import Wanted
from status.errors import ConfigError
from status.flower import feed as feeds
from status.flower.feed import Feed
from status.flower.source import Source
from status.flower.views import ListView, RunView
from waiting import wait_until


class Told:
    """What a page has got."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def __call__(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def has(self, name: str) -> list[Any]:
        return [message[name] for message in self.messages if name in message]

    def wait(self, name: str, reason: str) -> Any:
        return wait_until(lambda: self.has(name), reason, 20)[-1]


class Broken(ListView):
    """A page that something is wrong with."""

    def begin(self, source: Source) -> None:  # noqa: ARG002
        raise ConfigError("not this one")

    def look(self, source: Source, totals: dict[str, Any]) -> None:  # noqa: ARG002
        raise KeyError("nor this")


@pytest.fixture
def feed(redis_url, redis_client, monkeypatch) -> Iterator[Feed]:
    monkeypatch.setattr(feeds, "PAUSE_S", 0.2)
    with client_of(gallery.app, redis_url):
        made = Feed(lambda: Source(gallery.app))
        yield made
        for view in [*made._views, *made._new]:
            made.close(view)
        wait_until(lambda: made._thread is None, "the feed's thread ends with its last view", 10)


def listing(**wanted: str) -> tuple[Told, ListView]:
    told = Told()
    return told, ListView(Wanted(**wanted), 5, None, told)


def threads() -> int:
    return sum(thread.name == "celeriac-feed" for thread in threading.enumerate())


def test_one_thread_tells_all_pages_and_ends_with_the_last(feed, redis_client):
    Filler(redis_client).running(3)
    pages = [listing() for _ in range(10)]

    for _, view in pages:
        feed.open(view)

    for told, _ in pages:
        assert len(told.wait("rows", "all rows are told")) == 3
    assert threads() == 1
    for _, view in pages:
        feed.close(view)
    wait_until(lambda: threads() == 0, "no page is open, so nothing is read", 10)


def test_a_page_is_told_of_new_runs_and_of_changed_ones_alone(feed, redis_client):
    filler = Filler(redis_client)
    filler.running(3)
    told, view = listing()
    feed.open(view)
    told.wait("totals", "it has begun")
    told.messages.clear()

    filler.wide("new", 2)

    rows = told.wait("rows", "the new run is told")
    assert {row["id"] for rows in told.has("rows") for row in rows} == {"new"}
    assert rows[-1]["state"] == "completed"
    assert told.has("order")[-1] == ["new", "live-000002", "live-000001", "live-000000"]


def test_what_follows_a_page_is_what_new_runs_moved_on(feed, redis_client):
    filler = Filler(redis_client)
    filler.running(7)
    told, view = listing()
    feed.open(view)
    told.wait("cursor", "it has begun")

    filler.wide("new", 2)
    wait_until(lambda: told.has("order")[-1][0] == "new", "the new run is told", 20)

    next_page = Source(gallery.app).browser.page(Wanted(), limit=50, cursor=told.has("cursor")[-1])
    assert [row.run_id for row in next_page.rows] == ["live-000002", "live-000001", "live-000000"]


def test_a_page_that_something_is_wrong_with_keeps_no_other_waiting(feed, redis_client):
    Filler(redis_client).running(3)
    bad, (good, view) = Told(), listing()

    feed.open(Broken(Wanted(), 5, None, bad))
    feed.open(view)

    assert len(good.wait("rows", "the other page is told")) == 3
    good.wait("totals", "the other page is told more")
    assert bad.wait("trouble", "the broken one hears of it") in {"not this one", "'nor this'"}


def test_a_run_that_the_page_has_read_is_not_told_again(feed, redis_client):
    Filler(redis_client).wide("wide", 50)
    version = json.loads(Source(gallery.app).run_text("wide"))["version"]
    told, fresh = Told(), Told()

    feed.open(RunView("wide", version, told))
    feed.open(RunView("wide", "", fresh))

    fresh.wait("head", "the other is told all")
    told.wait("now_ms", "it goes on")
    assert told.has("head") == []


def test_after_trouble_a_page_is_told_all_anew(feed, redis_client, valkey):
    Filler(redis_client).running(3)
    told, view = listing()
    feed.open(view)
    told.wait("rows", "it has begun")

    valkey.kill()
    told.wait("trouble", "nothing can be read")
    told.messages.clear()
    valkey.restart()

    assert len(told.wait("order", "it begins anew")) == 3
