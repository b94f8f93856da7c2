"""Spans of runs and awaits, beside those that opentelemetry-instrumentation-celery makes of each message.

    from celery.signals import worker_process_init, worker_ready
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from canvas.otel import CeleriacInstrumentor

    @worker_process_init.connect(weak=False)    # the processes of the pool
    @worker_ready.connect(weak=False)           # the worker itself: it sends retries, and what got lost
    def trace(**_):
        ...                                     # a TracerProvider with your exporter
        CeleryInstrumentor().instrument()
        CeleriacInstrumentor().instrument()

Needs `pip install celeriac[otel]`. One trace a run, from its submit to its end, its children in it:

    submit orders.complete                      the client
    └── run orders.complete                     from submit to end
        ├── 0 fan_out_fail(…)                   an await, from the outcome before it to its own
        │   └── apply_async/inventory.check     by the Celery instrumentation, here and below
        │       └── run/inventory.check         on whatever worker
        └── 1 await(…)

A run lives longer than a process, so no process can hold its span. Its ids follow from the run's and the await's, and
whoever records the end makes the span, with the times that the journal has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined,unused-ignore]
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from canvas import tracing
from status.errors import ErrorInfo
from status.masking import mask
from status.records import RunRecord
from status.states import State

_PROPAGATOR = TraceContextTextMapPropagator()


class CeleriacInstrumentor(BaseInstrumentor):  # type: ignore[misc,unused-ignore]
    """Makes spans of runs and awaits in this process. `instrument(tracer_provider=...)`, `uninstrument()`."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """What it is about."""
        return ("celery >= 5.7, < 5.8",)

    def _instrument(self, **kwargs: Any) -> None:
        tracing.use(RunSpans(kwargs.get("tracer_provider")))

    def _uninstrument(self, **_: Any) -> None:
        tracing.use(None)


class _Ids(RandomIdGenerator):
    """Gives the ids that are wanted of the next span; random ones otherwise."""

    span_id: int | None = None
    trace_id: int | None = None

    def generate_span_id(self) -> int:
        return self.span_id or super().generate_span_id()

    def generate_trace_id(self) -> int:
        return self.trace_id or super().generate_trace_id()


class RunSpans:
    """Makes them.

    Args:
        provider: None: the one that is set for the process.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._provider = provider

    @contextmanager
    def submitting(self, run_id: str, workflow: str) -> Iterator[str]:
        """A span of the submit, made current; gives what the run is to remember of it."""
        provider = self._provider or trace.get_tracer_provider()
        tracer = provider.get_tracer("celeriac")
        attributes = {"celeriac.run_id": run_id, "celeriac.workflow": workflow}
        with tracer.start_as_current_span(f"submit {workflow}", kind=SpanKind.PRODUCER, attributes=attributes):
            yield _remembered()

    @contextmanager
    def below(self, run_id: str, nonce: str, fields: Mapping[str, str]) -> Iterator[str]:
        """Make the span of an await current, or of the run, if `nonce` is ''; gives what a child is to remember."""
        own = _span_id(run_id, nonce) if nonce else _run_span_id(run_id, fields)
        token = contexts.attach(_as_parent(_place(run_id, fields), own))
        try:
            yield _remembered()
        finally:
            contexts.detach(token)

    def decided(self, record: RunRecord) -> None:
        """The span of the last await of a run's journal."""
        awaits = sorted(int(field) for field in record.journal if field.isdigit())[-2:]
        if not awaits:
            return
        entry = json.loads(record.journal[str(awaits[-1])])
        before = json.loads(record.journal[str(awaits[0])]) if len(awaits) == 2 else None
        self._make(
            f"{awaits[-1]} {entry['fp']}",
            _as_parent(_place(record.run_id, record.fields), _run_span_id(record.run_id, record.fields)),
            span_id=_span_id(record.run_id, entry["x"]),
            from_ms=before["at"] if before else _begun_ms(record.fields),
            to_ms=entry["at"],
            attributes={**_attributes(record), "celeriac.await": awaits[-1], "celeriac.verdict": str(entry["v"])},
        )

    def ended(self, record: RunRecord, state: State, error: ErrorInfo | None) -> None:
        """The span of a run, and of its last await."""
        self.decided(record)
        place = _place(record.run_id, record.fields)
        self._make(
            f"run {record.workflow}",
            _as_parent(place, place.span_id) if place.span_id else contexts.Context(),
            span_id=_run_span_id(record.run_id, record.fields),
            trace_id=place.trace_id,
            from_ms=_begun_ms(record.fields),
            to_ms=time.time() * 1000,
            attributes={**_attributes(record), "celeriac.state": str(state)},
            error=None if error is None else f"{error.error_type}: {mask().text(error.message)}",
        )

    def _make(
        self,
        name: str,
        parent: contexts.Context,
        *,
        span_id: int,
        from_ms: float,
        to_ms: float,
        attributes: Mapping[str, str | int],
        trace_id: int | None = None,
        error: str | None = None,
    ) -> None:
        provider = self._provider or trace.get_tracer_provider()
        tracer = provider.get_tracer("celeriac")
        if not isinstance(tracer, SdkTracer):
            return  # no provider is set: nobody wants spans
        ids = _Ids()
        ids.span_id, ids.trace_id = span_id, trace_id
        tracer.id_generator = ids
        span = tracer.start_span(name, context=parent, start_time=int(from_ms * 1e6), attributes=attributes)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_time=int(max(from_ms, to_ms) * 1e6))


def _place(run_id: str, fields: Mapping[str, str]) -> SpanContext:
    """The trace of a run and the span that its own is below: 0 if nobody made one when it was submitted."""
    remembered = fields.get("trace")
    carried = _PROPAGATOR.extract({"traceparent": remembered}) if remembered else contexts.Context()
    found = trace.get_current_span(carried).get_span_context()
    if found.is_valid:
        return found
    digest = sha256(f"{run_id}|{fields['submitted_ms']}".encode()).digest()
    sampled = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int.from_bytes(digest[:16], "big") or 1, 0, is_remote=True, trace_flags=sampled)


def _span_id(run_id: str, what: str) -> int:
    return int.from_bytes(sha256(f"{run_id}|{what}|span".encode()).digest()[:8], "big") or 1


def _run_span_id(run_id: str, fields: Mapping[str, str]) -> int:
    """A run that is taken up again has another span in the same trace."""
    return _span_id(run_id, f"{fields['submitted_ms']}|{fields.get('gen') or 0}")


def _begun_ms(fields: Mapping[str, str]) -> float:
    return float(fields.get("since_ms") or fields["submitted_ms"])


def _as_parent(place: SpanContext, span_id: int) -> contexts.Context:
    parent = SpanContext(place.trace_id, span_id, is_remote=True, trace_flags=place.trace_flags)
    return trace.set_span_in_context(NonRecordingSpan(parent), contexts.Context())


def _attributes(record: RunRecord) -> dict[str, str | int]:
    return {"celeriac.run_id": record.run_id, "celeriac.workflow": record.workflow}


def _remembered() -> str:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")
