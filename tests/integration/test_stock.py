"""`run.apply`: stock Celery canvas awaited, with real workers; and what a crash in between leaves, without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import _state, chain, chord, group, signals
from celery.exceptions import ChordError

from canvas import ConfigError, PayloadError, Run, with_timeout, workflow
from canvas.outcomes import describe, encode_error
from canvas.stock import Applied, canvas_done, canvas_failed, task_ids
from clients import Client, client
from family import Died, Family
from leaks import keys_without_end
from status import get_status, here
from waiting import wait_until


@pytest.fixture
def stocked(redis_url, monkeypatch) -> Iterator[Any]:
    """The client's side of tests/apps/stocked.py."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import stocked

    before = _state._tls.current_app
    stocked.app.conf.broker_url = redis_url
    here.use(redis_url)
    stocked.app.set_current()
    yield stocked
    here.use(None)
    _state._tls.current_app = before


@pytest.fixture
def started(stocked, worker):
    node = worker("stocked", options=("--without-mingle", "--without-gossip"), queues=["celery"], concurrency=2)
    yield stocked
    node.kill()


GOOD = {
    "task": 3,
    "chain": 10,
    "group": [1, 2, 3],
    "chord": 6,
    "chain with a group in it": 7,
    "chain that ends with a group": [3, 4],
    "chord in a chord": 7,
    "steps": 7,
    "a step's value": {"size": 3},
    "chunks": [[0, 2], [4, 6]],
}
BAD = [
    "bad task", "bad first", "bad last", "bad in a group", "bad in a header", "bad body", "bad in an inner header",
]  # fmt: skip


def test_each_kind_of_stock_canvas_gives_what_it_gives_and_fails_as_the_task_in_it_does(started):
    """One worker for all of them; together, for each waits for a few messages."""
    good = {name: started.one.submit(name) for name in GOOD}
    bad = {name: started.one.submit(name) for name in BAD}
    among_others = started.after.submit()
    unkept = {name: started.one.submit(name) for name in ("unkept", "unkept in a header")}

    found = {name: handle.result(timeout_s=60) for name, handle in good.items()}
    assert {name: one["value"] for name, one in found.items()} == GOOD
    assert found["a step's value"]["is"] == "Box"
    failed = {name: handle.result(timeout_s=60) for name, handle in bad.items()}
    assert [one for one in failed.values() if one != ["no such thing", 404, True, False]] == []
    failed = {name: handle.result(timeout_s=60) for name, handle in unkept.items()}
    assert [one for one in failed.values() if one != ["nobody keeps this", 500, False, True]] == []
    for handle in good.values():
        (step,) = handle.status().steps
        assert (step.state, step.queue, step.child_run_id) == ("done", "", None)
    assert among_others.result(timeout_s=30) == 5


def test_a_canvas_that_nobody_runs_is_left_by_its_time_limit_and_a_rollback_does_not_wait_for_it(started, redis_client):
    handle = started.unserved.submit(run_id="unserved")

    (message,) = handle.result(timeout_s=30)

    assert "was not done within 0.5 s" in message
    wait_until(lambda: redis_client.lrange("notes", 0, -1) == ["undo None"], "it was undone as one that may have been")
    wait_until(lambda: get_status("unserved").finished, "it has ended")
    assert redis_client.llen("attic") == 1, "a revoked message stays until a worker takes it"
    assert keys_without_end(redis_client) == []


# --- without workers ---------------------------------------------------------------------


@pytest.fixture
def desk(redis_url, redis_client, monkeypatch) -> Iterator[Client]:
    with client("stock", redis_url, redis_client, monkeypatch) as made:

        @made.app.task(name="stock.plus")
        def plus(left: int, right: int) -> int:
            return left + right

        yield made


@workflow(name="stock.waits")
async def waits(run: Run) -> Any:
    plus = _state.get_current_app().tasks["stock.plus"]
    return await run.apply(chord([plus.s(1, 1), plus.s(1, 2)], plus.s(1)))


@workflow(name="stock.hurried")
async def hurried(run: Run) -> Any:
    plus = _state.get_current_app().tasks["stock.plus"]
    return await with_timeout(run.apply(chain(plus.s(1, 1), plus.s(2))), 60)


@pytest.fixture
def sent() -> Iterator[list[tuple[str, str]]]:
    """Name and id of each stock message."""
    seen: list[tuple[str, str]] = []

    def note(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append((sender, headers["id"]))

    signals.before_task_publish.connect(note, weak=False)
    yield seen
    signals.before_task_publish.disconnect(note)


def part_of(desk: Client) -> dict[str, Any]:
    claim = str(desk.redis.hget(desk.store.keys.join("top", 0), "c0"))
    return {"part": claim.partition("|")[0], "began_ms": 1, "label": "x"}


@pytest.mark.parametrize(("method", "after"), [("begin", False), ("begin", True), ("canvas_sent", False)])
def test_a_crash_between_record_and_publish_publishes_it_again_with_the_same_ids(
    desk, sent, monkeypatch, method, after
):
    desk.crash(monkeypatch, method, after=after)
    with pytest.raises(Died):
        desk.submit(waits)
    before = list(sent)

    desk.sweep()

    assert len(sent) == len(before) + 2
    assert set(before) <= set(sent)
    assert len(set(sent)) == 2
    desk.sweep(6)
    assert len(sent) == len(before) + 2, "it was sent, and is not sent again"
    canvas_done(5, **part_of(desk))
    assert (desk.play().state(), Family.result(desk)) == ("completed", "5")


def test_a_report_that_comes_twice_counts_once(desk):
    desk.submit(waits)
    part = part_of(desk)

    canvas_done(5, **part)
    canvas_done(6, **part)
    canvas_failed("id", ValueError("late"), None, queue="q", **part)

    assert (desk.play().state(), Family.result(desk)) == ("completed", "5")
    assert desk.left() == set()


def test_a_run_that_is_cancelled_revokes_the_tasks_and_waits_for_none(desk, monkeypatch):
    revoked: list[str] = []
    monkeypatch.setattr(desk.app.control, "revoke", revoked.extend)
    desk.submit(hurried)
    part = part_of(desk)["part"]

    desk.cancel()

    assert desk.state() == "cancelled"
    assert revoked == task_ids(part, 2)
    assert desk.left() == set()
    canvas_done(5, part=part, began_ms=1, label="x")
    assert desk.play().state() == "cancelled"


@pytest.mark.parametrize("method", ["finish", "child_stopped"])
def test_a_crash_while_it_is_stopped_is_made_good_by_the_sweep(desk, monkeypatch, method):
    monkeypatch.setattr(desk.app.control, "revoke", lambda _: None)
    desk.submit(hurried)
    desk.crash(monkeypatch, method)
    with pytest.raises(Died):
        desk.fire("join")

    desk.sweep()

    assert desk.state() == "failed"
    assert desk.left() == set()


def test_what_celery_refuses_fails_the_await(desk):
    @workflow(name="stock.unknown")
    async def unknown(run: Run) -> Any:
        return await run.apply(desk.app.signature("stock.nowhere", countdown="soon"))

    desk.submit(unknown)

    assert desk.state() == "failed"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda _: Applied(7), ConfigError, r"run.apply\(7\): it takes a Celery signature"),  # type: ignore[arg-type]
        (lambda plus: Applied(plus.s(object(), 1)), PayloadError, "can't be carried as JSON"),
        (lambda plus: Applied(plus.s("x" * 2_000_000, 1)), PayloadError, "CELERIAC_MAX_VALUE_BYTES"),
    ],
)
def test_what_can_not_be_applied_is_refused(desk, make, error, message):
    with pytest.raises(error, match=message):
        make(desk.app.tasks["stock.plus"])


def test_a_canvas_is_called_by_its_tasks(desk):
    plus = desk.app.tasks["stock.plus"]

    names = [
        Applied(one).label
        for one in (
            plus.s(1, 2),
            chain(plus.s(1, 2), plus.s(3)),
            group([plus.s(1, 2)] * 300),
            chord([plus.s(1, 2), plus.s(1, 2)], plus.s(1)),
            chain(plus.s(1, 2), group(plus.s(1), plus.s(2)), plus.s(4)),
        )
    ]

    assert names == [
        "stock.plus",
        "chain(stock.plus*2)",
        "group(stock.plus*300)",
        "chord(stock.plus*2, then stock.plus)",
        "chain(stock.plus, chord(stock.plus*2, then stock.plus))",
    ]


def test_a_task_that_failed_elsewhere_is_looked_up_in_the_result_backend(desk):
    desk.app.backend.store_result("known", LookupError("gone"), "FAILURE", traceback="Traceback: here")
    desk.submit(waits)

    canvas_failed("known", queue="q", **part_of(desk))
    desk.play()

    assert desk.error("top").message == "gone"
    assert desk.status().steps[0].error.traceback == "Traceback: here"


def test_a_task_whose_error_nobody_kept_is_named(desk):
    desk.submit(waits)

    canvas_failed("unknown", queue="q", **part_of(desk))
    desk.play()

    assert "task unknown of it failed on a worker without celeriac" in desk.error("top").message


def test_a_chord_s_own_error_waits_for_that_of_the_task_that_made_it_fail(desk, sent):
    desk.submit(waits)
    part = part_of(desk)
    sent.clear()

    canvas_failed(None, ChordError("Dependency x raised ValueError"), None, queue="q", **part)

    assert [name for name, _ in sent] == ["celeriac.canvas_failed"]
    assert desk.play().state() == "running"
    canvas_failed(encode_error(describe(ChordError("Dependency x raised ValueError"))), queue="q", **part)
    assert desk.play().error("top").message == "Dependency x raised ValueError"
