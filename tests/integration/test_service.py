"""`ServiceClient`: two apps on one Redis, and neither has the other's code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from canvas import ConfigError, PayloadError, Retry, RunFailed, ServiceClient, perform
from canvas import engine as engines
from canvas.in_place import InPlace, Place
from canvas.replay import Asks
from canvas.service import MARK
from nodes import Workers
from processes import client_of, queued
from status import State, get_status
from waiting import wait_until


@pytest.fixture
def book(tmp_path: Path) -> Path:
    found = tmp_path / "book"
    found.touch()
    return found


@pytest.fixture
def front(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import storefront

    with client_of(storefront.app, redis_url):
        yield storefront


@pytest.fixture
def start(worker: Workers, book: Path) -> Any:
    """Starts workers of one of the apps; those of the callers serve their own queues alone."""

    def start(app: str, queues: list[str]) -> Any:
        options = ["--without-mingle", "--without-gossip"]
        return worker(app, pool="threads", concurrency=4, queues=queues, env={"DEPOT_BOOK": str(book)}, options=options)

    return start


# --- two apps ----------------------------------------------------------------------


def test_steps_of_another_code_base_are_called_by_name(front, start, book):
    worker_of_front = start("storefront", ["front", "front-turns"])
    handle = front.buy.submit("tin")
    wait_until(lambda: handle.status().steps, "the service is asked, before it is there")
    worker_of_depot = start("depot", ["depot"])
    shared = front.many.submit(["tin", "gold", "wood"])
    sad = front.regret.submit("wood", run_id="sad")

    assert handle.result(timeout_s=30) == "wrapped tin-1"
    assert [step.name for step in handle.status().steps] == ["depot.reserve", "front.wrap"]
    assert shared.result(timeout_s=30) == [["tin-1", None, "wood-1"], "tin-2", [f"nail-{n}" for n in range(5)]]
    with pytest.raises(RunFailed, match="changed my mind"):
        sad.result(timeout_s=30)
    assert get_status("sad").state is State.COMPENSATED
    undone = [line for line in book.read_text().splitlines() if line.startswith("release")]
    assert undone == ["release wood-1 sad/1.0", "release wood-1 sad/0.0"]

    # Its errors and retries are those of any step.
    with pytest.raises(RunFailed, match="no gold") as failed:
        front.buy.submit("gold").result(timeout_s=30)
    assert failed.value.code == 404
    assert front.buy.submit("flaky").result(timeout_s=30) == "wrapped flaky-1"
    assert [line for line in book.read_text().splitlines() if "flaky" in line] == [
        f"reserve flaky 1 {attempt}" for attempt in (1, 2, 3)
    ]
    with pytest.raises(RunFailed, match=r"idempotent=False.*ServiceClient\(\.\.\., idempotent=False\)"):
        front.once.submit(False).result(timeout_s=30)
    assert front.once.submit(True).result(timeout_s=30) == "egg"

    # The service's worker knows no workflow, and sends each turn to the queue that the run has for it.
    assert "this worker has no" not in worker_of_front.output() + worker_of_depot.output()


def test_where_nobody_answers_the_timeout_names_the_queue(front, start, book, redis_client):
    """Nor is a plain Celery task of that name run. It would run without a claim, and be sent again for ever."""
    start("storefront", ["front", "front-turns"])

    with pytest.raises(RunFailed, match=r"no answer within 2 s from queue 'depot'.*'depot.reserve' as a @step") as late:
        front.wait.submit("tin").result(timeout_s=30)
    assert (late.value.code, late.value.error_type) == (408, "status.errors.StepTimeout")
    said = front.batch.submit(3).result(timeout_s=30)
    assert len(said) == 3
    assert "no answer within 2 s from queue 'depot'" in said[0]

    plain = start("plain_depot", ["depot"])
    unknown = f"unregistered task of type 'depot.reserve{MARK}'"
    wait_until(lambda: unknown in plain.output(), "its log says what it would need")
    with pytest.raises(RunFailed, match="no answer within 2 s from queue 'depot'"):
        front.wait.submit("tin").result(timeout_s=30)
    assert book.read_text() == ""
    assert queued(redis_client, "depot") == 0


def test_a_service_is_never_run_where_its_caller_is(front):
    """Though this process may have its step too, has run it, and serves its queue."""
    here = InPlace(engines.of(front.app), Place("w1", frozenset({"depot"}), 1.0))
    perform.took_s["depot.reserve"].extend([0.0] * 5)
    call = front.impatient.s(front.Order(item="tin"))

    assert here.choose("r", Asks(0, call.recipe(), (call.prepare(),))) is None


# --- what is refused ---------------------------------------------------------------


def test_a_request_must_fit_its_type():
    client: Any = ServiceClient("depot", "reserve", int, str)

    with pytest.raises(PayloadError, match=r"argument request of depot.reserve: .* got 'x'"):
        client.s("x")
    with pytest.raises(PayloadError, match=r"got a call of depot\.reserve"):
        client.s(client.s(1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ServiceClient("", "reserve", int, str), "the service is no part"),
        (lambda: ServiceClient("depot", "re serve", int, str), "the handler is no part"),
        (lambda: ServiceClient("depot", "x", int, str, timeout_s=0), "timeout_s"),
        (lambda: ServiceClient("depot", "x", int, str, retry=Retry(on=(OSError,))), "another code base"),
        (lambda: ServiceClient("depot", "x", object, type("Opaque", (), {})), "can't be carried as JSON"),
    ],
)
def test_a_client_is_checked_where_it_is_made(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
