"""The app of seen.py, in whose worker processes spans are made and put on a list in Redis."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import redis
from celery.signals import worker_process_init, worker_ready
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from seen import app

from canvas.otel import CeleriacInstrumentor

__all__ = ["app"]

SPANS = "spans"


def plain(span: ReadableSpan) -> dict[str, Any]:
    """What a test asks of a span."""
    assert span.context is not None
    return {
        "name": span.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent else None,
        "from": span.start_time,
        "to": span.end_time,
        "pid": os.getpid(),
        "attributes": dict(span.attributes or {}),
        "ok": span.status.is_ok,
    }


class Shared(InMemorySpanExporter):
    """One that others can look into."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
            client.rpush(SPANS, *(json.dumps(plain(span)) for span in spans))
        return super().export(spans)


@worker_process_init.connect(weak=False)
@worker_ready.connect(weak=False)
def trace(**_: Any) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Shared()))
    CeleryInstrumentor().instrument(tracer_provider=provider)
    CeleriacInstrumentor().instrument(tracer_provider=provider)
