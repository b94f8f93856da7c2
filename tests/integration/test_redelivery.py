"""Messages that come twice, and a backlog that must not be sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from canvas.engine import Engine
from canvas.pulse import Sweeper
from processes import client_of, due, queued, send_again
from status import get_status
from status.settings import Settings
from status.store import Store
from waiting import wait_until

BACKLOG = 10_000


@pytest.fixture
def deadly(redis_url, monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import deadly

    with client_of(deadly.app, redis_url):
        yield deadly


def test_visibility_redelivery_in_body(deadly, worker, redis_client):
    """The broker gives a message again while its step runs, as after a visibility timeout: it is refused."""
    nodes = [worker("deadly", concurrency=1, name=f"w{n}") for n in range(2)]
    handle = deadly.several.submit(5, 1, run_id="r")
    wait_until(lambda: redis_client.lrange("began", 0, -1), "the step runs")

    # Either may take it; the one that is busy takes it after its own, when the part has ended.
    for _ in range(6):
        send_again(deadly.app, "r")

    assert handle.result(timeout_s=30) == ["r.0 1"]
    wait_until(lambda: any("is not run: held" in node.output() for node in nodes), "it was refused")
    wait_until(lambda: not due(), "nothing is due any more")
    assert redis_client.lrange("began", 0, -1) == ["r.0"]


def test_visibility_redelivery_in_backoff(deadly, worker, redis_client):
    """The message of a failed attempt comes again while its retry waits for its time."""
    node = worker("deadly", concurrency=1)
    handle = deadly.again.submit(run_id="r")
    wait_until(lambda: any(step.state == "retrying" for step in get_status("r").steps), "the first attempt has failed")

    for _ in range(3):
        send_again(deadly.app, "r")

    assert handle.result(timeout_s=30) == 2
    wait_until(lambda: node.output().count("attempt 1 is not run") == 3, "all of them were refused")
    assert redis_client.lrange("began", 0, -1) == ["r"] * 2


def test_backlog_10_000_publishes_no_duplicate_turns(deadly, redis_client):
    """However long nobody takes them: what still lies on its queue is not sent again."""
    store = Store(redis_client, Settings())
    engine = Engine(deadly.app, store)
    for n in range(BACKLOG):
        made = store.submit(f"r{n}", workflow="deadly.again", input_json="[[],{}]", digest="d", token=uuid4().hex)
        assert made
        engine.send_turn(f"r{n}", "deadly.again", first=True)
    assert queued(redis_client) == BACKLOG
    sweeper = Sweeper(engine, "me")

    for _ in range(3):
        for shard in range(store.keys.shards):
            redis_client.incrby(store.keys.tick(shard), 64)
        looked = _sweep_all(sweeper, store)
        assert looked == BACKLOG, "each of them is due, and was looked at"

    assert queued(redis_client) == BACKLOG


def _sweep_all(sweeper: Sweeper, store: Store) -> int:
    """Rounds of the sweep until nothing is due. Gives how many things it has looked at."""
    looked = 0
    sweeper.backlog.look_again()
    for shard in range(store.keys.shards):
        while members := store.sweep(shard, sweeper.name):
            looked += len(members)
            for member in members:
                sweeper.repair(member, "", "")
    return looked
