"""One trace a run, from its client through all processes that work on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from processes import client_of, steal
from waiting import wait_until

pytest.importorskip("opentelemetry.instrumentation.celery")

from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from canvas.otel import CeleriacInstrumentor

Span = dict[str, Any]


class Spans:
    """Those of this process, and of the workers'."""

    def __init__(self, client: Any) -> None:
        self.redis = client
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> dict[int, Span]:
        from apps.traced import SPANS, plain

        mine = [plain(span) for span in self.exporter.get_finished_spans()]
        theirs = [json.loads(text) for text in self.redis.lrange(SPANS, 0, -1)]
        return {span["id"]: span for span in [*mine, *theirs]}

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.all().values() if span["name"] == name]
        return found

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: set(names) <= {span["name"] for span in self.all().values()}, f"spans {names}", 30)

    def above(self, span: Span) -> list[str]:
        """The names of those that a span is below, nearest first."""
        all_of_them, found = self.all(), []
        while span["parent"] is not None:
            span = all_of_them[span["parent"]]
            found.append(span["name"])
        return found


@pytest.fixture
def spans(redis_url: str, redis_client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.syspath_prepend("tests/apps")
    made = Spans(redis_client)
    CeleryInstrumentor().instrument(tracer_provider=made.provider)
    CeleriacInstrumentor().instrument(tracer_provider=made.provider)
    yield made
    CeleriacInstrumentor().uninstrument()
    CeleryInstrumentor().uninstrument()


@pytest.fixture
def seen(spans: Spans, redis_url: str) -> Iterator[Any]:
    import seen

    with client_of(seen.app, redis_url):
        yield seen


def test_an_order_is_one_trace_across_all_processes(seen, spans, worker):
    nodes = [worker("traced", concurrency=1, options=("--without-mingle", "--without-gossip")) for _ in range(2)]

    with spans.provider.get_tracer("web").start_as_current_span("POST /orders"):
        handle = seen.order.submit("A-1", "4111", run_id="order-7")
    handle.result(timeout_s=30)

    spans.wait_for("run seen.order", "run seen.parcels", "1 await(seen.parcels)")
    for node in nodes:
        node.kill()
    everything = spans.all()
    assert len({span["trace"] for span in everything.values()}) == 1
    assert [span["name"] for span in everything.values() if span["parent"] is None] == ["POST /orders"]
    assert spans.above(spans.named("run seen.order")) == ["submit seen.order", "POST /orders"]
    # A step is below its await, its await below its run, a child below the await that it is a part of.
    attempts = [span for span in everything.values() if span["name"] == "run/seen.charge"]
    assert len(attempts) == 2
    above = ["apply_async/seen.charge", "0 await(seen.charge)", "run seen.order", "submit seen.order", "POST /orders"]
    assert [spans.above(span) for span in attempts] == [above, above]
    child = spans.named("run seen.parcels")
    assert spans.above(child)[:2] == ["1 await(seen.parcels)", "run seen.order"]
    assert len({span["pid"] for span in everything.values()}) >= 2
    run, first = spans.named("run seen.order"), spans.named("0 await(seen.charge)")
    assert run["from"] <= first["from"] <= first["to"] <= run["to"]
    assert run["attributes"] | {"celeriac.state": "completed", "celeriac.run_id": "order-7"} == run["attributes"]


def test_what_is_sent_again_stays_in_the_trace_and_a_failure_is_one(seen, spans, worker, redis_client):
    handle = seen.undone.submit("A-1", run_id="order-8")
    assert len(steal(redis_client)) == 1  # its first turn: a sweep has to find out

    node = worker("traced", concurrency=1, options=("--without-mingle", "--without-gossip"))
    handle.wait_for(lambda status: status.finished, timeout_s=60)

    spans.wait_for("run seen.undone")
    node.kill()
    run = spans.named("run seen.undone")
    assert (run["ok"], run["attributes"]["celeriac.state"]) == (False, "compensated")
    worked = [span for span in spans.all().values() if span["name"].startswith("run/")]
    assert {span["trace"] for span in worked} == {run["trace"]}
    assert run["trace"] == spans.named("submit seen.undone")["trace"]


def test_a_run_is_not_touched_where_nothing_traces(redis_client, redis_url, monkeypatch):
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import seen

    with client_of(seen.app, redis_url):
        seen.asked.submit(run_id="order-9")

    key = next(key for key in redis_client.scan_iter("*:run:order-9"))
    assert redis_client.hget(key, "trace") is None
