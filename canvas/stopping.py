"""Stops steps that nobody waits for any more, on the worker where they run and nowhere else."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from celery.worker import state as worker_state
from celery.worker.control import control_command
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from status.records import Claim

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celeriac")

COMMAND = "celeriac_stop"

#: The pool looks for dead children when their pipe closes, which may be a moment before the kernel has
#: them ready to be reaped, and then again only after 5 s. These looks, in seconds, are in between.
LOOKS_S = (0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8)


def send_stop(app: Celery, claims: Iterable[Claim]) -> None:
    """Ask each claim's worker to stop it. Best effort: a step that is not reached ends by itself, in vain."""
    by_worker: dict[str, list[str]] = defaultdict(list)
    for claim in claims:
        if claim.interruptible and claim.where:
            by_worker[claim.where].append(claim.token)
    for worker, tokens in by_worker.items():
        try:
            app.control.broadcast(COMMAND, arguments={"tokens": tokens}, destination=[worker], reply=False)
        except (OperationalError, RedisError, OSError) as error:
            logger.warning("%s was not told to stop %d step(s), they run on in vain: %s", worker, len(tokens), error)


@control_command(name=COMMAND, args=[("tokens", list)], signature="[token1 [token2 [... [tokenN]]]]")
def stop(state: Any, tokens: list[str]) -> dict[str, str]:
    """Terminate the requests that hold these claims, where the pool can."""
    wanted, stopped = set(tokens), 0
    for request in list(worker_state.active_requests):
        if getattr(request, "celeriac_token", None) in wanted and _terminate(state.consumer, request):
            stopped += 1
    return {"ok": f"{stopped} stopped"}


def _terminate(consumer: Any, request: Any) -> bool:
    pool = consumer.pool
    if not hasattr(pool, "terminate_job") or "prefork" not in type(pool).__module__:
        return False
    request.terminate(pool, signal="KILL")
    for look_s in LOOKS_S:
        consumer.hub.call_later(look_s, _maintain, pool)
    return True


def _maintain(pool: Any) -> None:
    pool._pool.maintain_pool()  # noqa: SLF001  # the public way waits for its own timer
