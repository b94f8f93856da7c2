"""What the doctor says of the Celery app's settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from canvas.install import REFUSED_TRANSPORT, SAFE_TRANSPORT
from status.doctor_words import Finding, error, info, ok, some, warning

OUR_TRANSPORT = "canvas.transport:Transport"
OUR_BACKEND = "canvas.backend:RunBackend+"

#: After a worker's death its messages of tasks other than steps come back this much later than they could.
LATE_S = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """A Celery app, as far as the doctor looks at it.

    Attributes:
        on_redis: Whether its broker is a Redis.
        has_pulse: Whether its workers vouch and sweep.
        longest_s: The longest time that a task or step may take, of those that say so; 0: none does.
        early_acks: Steps that say `acks_late=False`.
        others: Tasks that are neither steps, workflows nor Celery's own, and are acked before they run.
    """

    backend: str
    transport: str
    on_redis: bool = True
    has_pulse: bool = True
    options: Mapping[str, Any] = field(default_factory=lambda: dict(SAFE_TRANSPORT))
    multiplier: int = 4
    longest_s: float = 0
    early_acks: Collection[str] = ()
    others: Collection[str] = ()


def app_findings(setup: Setup) -> list[Finding]:
    """Everything about an app's settings."""
    return [
        install(setup),
        transport(setup),
        *options(setup),
        visibility(setup),
        multiplier(setup),
        *acks(setup),
    ]


def install(setup: Setup) -> Finding:
    """Whether results and workers are celeriac's."""
    remedy = "call canvas.install(app) after the app's own settings, and set no result_backend"
    if not setup.backend.startswith(OUR_BACKEND):
        shown = setup.backend.partition("://")[0] or "none"
        return error("app.install", f"the result backend is not celeriac's ({shown}): no step would end", remedy)
    if not setup.has_pulse:
        return error("app.install", "workers of this app neither vouch for steps nor sweep", remedy)
    return ok("app.install", "canvas.install(app) was called: backend and bootstep are celeriac's")


def transport(setup: Setup) -> Finding:
    """Whether messages go by celeriac's own transport."""
    if not setup.on_redis:
        return info("app.transport", "the broker is no Redis: a lost message is found by waiting, not by looking")
    if setup.transport != OUR_TRANSPORT:
        return warning(
            "app.transport",
            "the broker is a Redis, without celeriac's transport: two more transactions for each message",
            f'set broker_transport = "{OUR_TRANSPORT}", or leave it to canvas.install',
        )
    return ok("app.transport", "messages go by celeriac's transport")


def options(setup: Setup) -> Iterator[Finding]:
    """Options that keep messages back, or one by one."""
    refused = [name for name in REFUSED_TRANSPORT if name in setup.options]
    if refused:
        yield error(
            "app.options",
            f"broker_transport_options has {some(refused)}: kombu refuses to send the steps of a join in one batch",
            "take it out",
        )
    slow = [name for name in SAFE_TRANSPORT if name.startswith("unacked") and setup.options.get(name) != 1]
    if setup.on_redis and slow:
        yield warning(
            "app.options",
            f"{some(slow)} not 1: messages of other tasks come back up to {LATE_S} s late when a worker dies",
            "set each to 1 in broker_transport_options",
        )


def visibility(setup: Setup) -> Finding:
    """Whether a message comes back while its task still runs."""
    if not setup.on_redis:
        return ok("app.visibility", "the broker is no Redis: there is no visibility timeout")
    seconds = float(setup.options.get("visibility_timeout", SAFE_TRANSPORT["visibility_timeout"]))
    if seconds < max(setup.longest_s, 60):
        what = f"tasks may take {setup.longest_s:g} s" if setup.longest_s > 60 else "that is short"
        return warning(
            "app.visibility",
            f"visibility_timeout is {seconds:g} s and {what}: a task that is no step may run twice at once",
            "set broker_transport_options['visibility_timeout'] to more than the longest task takes",
        )
    return ok("app.visibility", f"visibility_timeout {seconds:g} s; steps need none")


def multiplier(setup: Setup) -> Finding:
    """How many messages a worker takes before it can do them."""
    number = setup.multiplier
    if number == 0:
        return warning(
            "app.prefetch",
            "worker_prefetch_multiplier is 0: one worker takes all that lies on its queues",
            "set it to 4 (1 where steps are long)",
        )
    return ok("app.prefetch", f"worker_prefetch_multiplier {number}")


def acks(setup: Setup) -> Iterator[Finding]:
    """Who acks before the work is done."""
    if setup.early_acks:
        yield warning(
            "app.acks",
            f"acks_late is off for {some(setup.early_acks)}: a stopping worker drops what it has not begun, "
            "and only the sweep sends it again",
            "take acks_late=False out of @step",
        )
    if setup.others:
        yield info(
            "app.acks",
            f"{some(setup.others)}: no steps, and acked before they run: lost with their worker",
            "set acks_late=True for those that may run twice, or make steps of them",
        )
    if not setup.early_acks and not setup.others:
        yield ok("app.acks", "steps are acked when they have ended")
