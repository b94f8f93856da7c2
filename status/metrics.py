"""Figures as Prometheus reads them: in Flower's `/metrics`, by `celery runs metrics`, or in a process of your own.

from status import metrics
metrics.register()                  # in the default registry; needs `pip install celeriac[metrics]`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from time import monotonic

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from status import here
from status.advice import advice
from status.errors import OrchestrationError
from status.figures import Figures, Labels, Times, bounds_s, gather
from status.keys import Keys
from status.settings import Settings

logger = logging.getLogger("celeriac")

#: Who asks for figures waits no longer than this for Redis: Flower serves nothing else meanwhile.
TIMEOUT_S = 2.0

#: Redis is asked at most this often, however many ask for figures.
FRESH_S = 1.0


class RunCollector(Collector):
    """Asks Redis whenever it is asked. If Redis does not answer, all it says is `celeriac_up 0`.

    Args:
        look: Gives the figures; None: those of the Redis that this process uses.
    """

    def __init__(self, look: Callable[[], Figures] | None = None) -> None:
        self._look = look or look_here
        self._known: tuple[float, list[Metric]] = (float("-inf"), [])

    def describe(self) -> Iterable[Metric]:
        """Nothing: else Redis would be asked when the collector is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The figures as Prometheus has them."""
        if monotonic() - self._known[0] > FRESH_S:
            self._known = (monotonic(), self._ask())
        return self._known[1]

    def _ask(self) -> list[Metric]:
        try:
            figures = self._look()
        except (RedisError, OrchestrationError, OSError) as error:
            logger.warning("no figures: %s", advice(error) if isinstance(error, RedisError) else error)
            return [_gauge("celeriac_up", "Whether the Redis of the runs answers.", 0)]
        return [_gauge("celeriac_up", "Whether the Redis of the runs answers.", 1), *families(figures)]


def families(figures: Figures) -> Iterable[Metric]:
    """Each figure with its name, its labels and what it is."""
    yield _each(GaugeMetricFamily, "celeriac_runs", "Runs that are there now.", ("state",),
                {(state,): number for state, number in figures.states.items()})  # fmt: skip
    yield _counts("celeriac_runs_submitted", "Runs that were submitted.", ("workflow",), figures.submitted)
    yield _times("celeriac_run_duration_seconds", "From the submit (or a retry) of a run to its end.",
                 ("workflow", "state"), figures.runs)  # fmt: skip
    yield _times("celeriac_phase_duration_seconds", "From one phase of a run to the next, or its end.",
                 ("workflow", "phase"), figures.phases)  # fmt: skip
    yield _times("celeriac_step_duration_seconds", "The last attempt of a step, counted when its run ends.",
                 ("step", "state"), figures.steps)  # fmt: skip
    yield _counts("celeriac_step_retries", "Attempts that failed or timed out and are made again.", ("step",),
                  figures.retries)  # fmt: skip
    yield _counts("celeriac_compensations", "Undos that succeeded or gave up.", ("undo", "outcome"), figures.undos)
    yield _counts("celeriac_recoveries", "Claims of dead workers, lost turns and messages, put back on their way.",
                  ("what",), figures.recovered)  # fmt: skip
    yield _gauge("celeriac_timers", "Open timers: delays, retries, time limits, sleeps.", figures.timers)
    yield _gauge("celeriac_timers_late", "Timers that have been due for more than a second.", figures.late)
    yield _gauge("celeriac_due", "Unfinished things that the sweep watches over.", figures.due)
    yield _each(GaugeMetricFamily, "celeriac_queue_messages", "Messages that wait on a queue.", ("queue",),
                {(queue.name,): queue.messages for queue in figures.queues})  # fmt: skip
    yield _each(GaugeMetricFamily, "celeriac_queue_lag_seconds", "How long the oldest message of a queue has waited.",
                ("queue",), {(queue.name,): queue.oldest_s or 0 for queue in figures.queues})  # fmt: skip


@cache
def register(registry: CollectorRegistry = REGISTRY) -> RunCollector:
    """Show the figures in a registry: by default the one that Flower and most exporters show. Again: nothing."""
    collector = RunCollector()
    registry.register(collector)
    return collector


def look_here() -> Figures:
    """The figures of the Redis that this process uses.

    Raises:
        RedisError: It does not answer within `TIMEOUT_S`.
        ConfigError: It can't be found out where it is.
    """
    with here.connect(here.address(), timeout_s=TIMEOUT_S, retries=0) as redis:
        return gather(redis, Keys(Settings.from_environment().shards))


def exposition() -> str:
    """The figures as a text for Prometheus.

    Raises:
        RedisError: Redis does not answer.
    """
    figures = look_here()
    registry = CollectorRegistry()
    registry.register(RunCollector(lambda: figures))
    return generate_latest(registry).decode()


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _counts(name: str, what: str, labels: Labels, found: Mapping[Labels, int]) -> Metric:
    return _each(CounterMetricFamily, name, what, labels, found)


def _each(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    what: str,
    labels: Labels,
    found: Mapping[Labels, float],
) -> Metric:
    family = kind(name, what, labels=labels)
    for values, number in sorted(found.items()):
        family.add_metric(values, number)
    return family


def _times(name: str, what: str, labels: Labels, found: Mapping[Labels, Times]) -> Metric:
    family = HistogramMetricFamily(name, what, labels=labels)
    bounds = [*map(str, bounds_s()), "+Inf"]
    for values, times in sorted(found.items()):
        so_far = [sum(times.buckets[: at + 1]) for at in range(len(bounds))]
        family.add_metric(values, list(zip(bounds, so_far, strict=True)), times.sum_s)
    return family
