"""Listings of many runs: each once, newest first, however they are filtered and paged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.filling import Filler
from status import browsing
from status.browsing import Browser, Listing, Wanted
from status.errors import ConfigError
from status.keys import Keys
from status.reading import Reader
from status.states import State
from status.throughput import BUCKETS, Throughput

FINISHED, RUNNING = 400, 40


@pytest.fixture
def browser(redis_client) -> Browser:
    filler = Filler(redis_client)
    filler.finished(FINISHED)
    filler.running(RUNNING)
    return Browser(redis_client, Keys())


def pages(browser: Browser, wanted: Wanted, limit: int, budget_s: float = 10) -> Iterator[Listing]:
    cursor = None
    for _ in range(2000):
        page = browser.page(wanted, limit=limit, cursor=cursor, budget_s=budget_s)
        yield page
        cursor = page.cursor
        if cursor is None:
            return
    raise AssertionError("it goes on for ever")


def ids(browser: Browser, wanted: Wanted, limit: int, budget_s: float = 10) -> list[str]:
    return [row.run_id for page in pages(browser, wanted, limit, budget_s) for row in page.rows]


@pytest.mark.parametrize("limit", [7, 50, 1000])
def test_pages_have_each_run_once_and_the_newest_first(browser, limit):
    found = [row for page in pages(browser, Wanted(), limit) for row in page.rows]

    assert len({row.run_id for row in found}) == len(found) == FINISHED + RUNNING
    assert found == sorted(found, key=lambda row: row.place, reverse=True)


def test_runs_of_the_same_moment_are_all_found(redis_client):
    """Some indexes have more of them than are read at a time."""
    names = [f"r{n}" for n in range(300)]
    keys = Keys()
    for name in names:
        redis_client.hset(
            keys.run(name), mapping={"workflow": "w", "state": "running", "submitted_ms": 5000, "updated_ms": 5000}
        )
        redis_client.zadd(keys.state(keys.shard_of(name), "running"), {name: 5000})
    browser = Browser(redis_client, keys)

    assert ids(browser, Wanted(), 20) == sorted(names, reverse=True)
    assert ids(browser, Wanted(workflow="w"), 7) == sorted(names, reverse=True)
    assert ids(browser, Wanted(text="R1"), 7, budget_s=0) == [n for n in sorted(names, reverse=True) if "r1" in n]
    redis_client.flushall()


def test_a_search_gives_a_run_that_is_in_two_indexes_once(browser, redis_client):
    """It changes its state between two looks."""
    keys = Keys()
    shard = keys.shard_of("order-000201")
    ms = redis_client.zscore(keys.state(shard, "completed"), "order-000201")
    redis_client.zadd(keys.state(shard, "running"), {"order-000201": ms})

    assert ids(browser, Wanted(text="r-00020"), 3) == [f"order-00020{n}" for n in reversed(range(10))]
    redis_client.zrem(keys.state(shard, "running"), "order-000201")


def test_a_search_that_has_come_to_the_end_says_so(browser, redis_client):
    page = browser.page(Wanted(workflow="no.such"), budget_s=0)
    while page.cursor:
        page = browser.page(Wanted(workflow="no.such"), budget_s=0, cursor=page.cursor)
        assert page.looked_ms is None or page.looked_ms > 0

    assert page == Listing((), None, None)


def test_a_search_works_on_a_server_that_has_forgotten_its_scripts(browser, redis_client):
    redis_client.script_flush()

    assert ids(browser, Wanted(workflow="reports.build"), 50) == []


def test_runs_are_filtered_by_state_workflow_and_a_part_of_the_id(browser):
    assert len(ids(browser, Wanted(state="unfinished"), 50)) == RUNNING
    assert len(ids(browser, Wanted(state="failed"), 50)) == FINISHED / 20
    assert len(ids(browser, Wanted(workflow="mail.send"), 50)) == sum(n % 3 == 2 for n in range(FINISHED)) + 13
    assert ids(browser, Wanted(text="DER-0001"), 50) == [f"order-0001{n:02}" for n in reversed(range(100))]
    assert ids(browser, Wanted(state="failed", workflow="orders.ship", text="order-00004"), 50) == ["order-000040"]
    assert ids(browser, Wanted(workflow="no.such"), 50) == []


def test_a_search_whose_time_is_up_goes_on_where_it_was(browser, monkeypatch):
    monkeypatch.setattr(browsing, "CHUNK", 16)

    found = list(pages(browser, Wanted(text="order-00000"), 50, budget_s=0))

    assert len(found) > FINISHED / 16 - 1
    assert [row.run_id for page in found for row in page.rows] == [f"order-00000{n}" for n in reversed(range(10))]
    assert all(page.looked_ms for page in found[:-1])


def test_a_whole_id_is_found_at_once_however_old_the_run_is(browser, monkeypatch):
    monkeypatch.setattr(browsing, "CHUNK", 16)

    page = browser.page(Wanted(text="order-000000"), budget_s=0)

    assert [row.run_id for row in page.rows] == ["order-000000"]
    assert ids(browser, Wanted(text="order-000000"), 50) == ["order-000000"]


def test_a_page_costs_the_same_however_many_runs_there_are(redis_client):
    def commands() -> int:
        before = redis_client.info("stats")["total_commands_processed"]
        Browser(redis_client, Keys()).page(Wanted(), limit=50)
        return int(redis_client.info("stats")["total_commands_processed"]) - before

    filler = Filler(redis_client)
    filler.finished(100)
    few = commands()
    filler.running(2000)

    assert commands() < few + 100
    assert few < 400


def test_what_an_index_says_of_a_run_that_is_gone_or_was_another_is_not_believed(browser, redis_client):
    keys = Keys()
    redis_client.delete(keys.run("order-000399"))
    redis_client.hset(keys.run("order-000398"), "submitted_ms", 1)
    redis_client.zadd(keys.state(keys.shard_of("order-000397"), "failed"), {"order-000397": 1})

    found = ids(browser, Wanted(), 50)

    assert not {"order-000399", "order-000398"} & set(found)
    assert found.count("order-000397") == 1


@pytest.mark.parametrize(
    ("asked", "said"), [({"limit": 0}, "limit must be"), ({"cursor": "%%"}, "cursor"), ({"limit": 5000}, "1000")]
)
def test_what_is_malformed_is_refused_with_its_value(redis_client, asked, said):
    with pytest.raises(ConfigError, match=said):
        Browser(redis_client, Keys()).page(Wanted(), **asked)


def test_a_state_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"no state is called 'happy': there are unfinished, pending, running"):
        Wanted(state="happy")


def test_a_sparkline_counts_each_run_in_the_minute_it_was_started(browser, redis_client):
    throughput = Throughput(redis_client, Keys())
    counts = Reader(redis_client, Keys()).counts()
    now_ms = redis_client.time()[0] * 1000

    started = throughput.started(now_ms, counts)

    assert (len(started), sum(started)) == (BUCKETS, FINISHED + RUNNING)
    assert throughput.started(now_ms, counts) == started
    assert sum(throughput.started(now_ms + 3_600_000 + 60_000, counts)) == 0


def test_the_rate_of_ends_is_taken_over_the_last_seconds(redis_client):
    throughput = Throughput(redis_client, Keys())

    def at(now_ms: int, ended: int) -> float | None:
        return throughput.ended_per_s(now_ms, {State.COMPLETED: ended, State.RUNNING: 7})

    assert at(0, 100) is None
    assert at(5000, 110) == 2
    assert at(20_000, 110) is None
    assert at(25_000, 105) == 0  # Redis forgot some
