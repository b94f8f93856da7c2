"""Stops steps that nobody waits for any more, on the worker where they run and nowhere else."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from celery.worker import state as worker_state
from celery.worker.control import control_command
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas import interrupting
from status.records import Claim

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celeriac")

COMMAND = "celeriac_stop"

#: What a step has to tidy up in, from when it is interrupted, before its process is killed.
GRACE_S = 0.2

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
            with _connection(app) as own:
                tell = app.control.broadcast
                tell(COMMAND, arguments={"tokens": tokens}, destination=[worker], connection=own, reply=False)
        except (OperationalError, RedisError, OSError) as error:
            logger.warning("%s was not told to stop %d step(s), they run on in vain: %s", worker, len(tokens), error)


def _connection(app: Celery) -> AbstractContextManager[Any]:
    """None, for one of the pool's; but Celery takes a second one while it has that, and would wait for it for ever."""
    return app.connection_for_write() if app.conf.broker_pool_limit == 1 else nullcontext()


@control_command(name=COMMAND, args=[("tokens", list)], signature="[token1 [token2 [... [tokenN]]]]")
def stop(state: Any, tokens: list[str]) -> dict[str, str]:
    """Interrupt the requests that hold these claims, where the pool can; who does not end in time is killed."""
    wanted = set(tokens)
    found = [one for one in list(worker_state.active_requests) if getattr(one, "celeriac_token", None) in wanted]
    return {"ok": f"{sum(_interrupt(state.consumer, request) for request in found)} stopped"}


def _interrupt(consumer: Any, request: Any) -> bool:
    pool = consumer.pool
    if not hasattr(pool, "terminate_job") or "prefork" not in type(pool).__module__:
        return False
    if request.celeriac_interrupted:
        return True  # it is tidying up
    slot = _slot_of(pool, request.worker_pid)
    if slot is None or consumer.hub is None or not interrupting.ask(slot, request.worker_pid, request.celeriac_token):
        _kill(consumer, request)
        return True
    request.celeriac_interrupted = True
    consumer.hub.call_later(GRACE_S, _make_sure, consumer, request, slot)
    return True


def _slot_of(pool: Any, pid: int) -> int | None:
    return next((process.index for process in pool._pool._pool if process.pid == pid), None)  # noqa: SLF001  # no other way


def _make_sure(consumer: Any, request: Any, slot: int) -> None:
    # It may have died meanwhile, and then nobody has said that its body is over.
    if request in worker_state.active_requests and interrupting.runs(slot, request.celeriac_token):
        _kill(consumer, request)


def _kill(consumer: Any, request: Any) -> None:
    request.terminate(consumer.pool, signal="KILL")
    for look_s in LOOKS_S if consumer.hub is not None else ():
        consumer.hub.call_later(look_s, _maintain, consumer.pool)


def _maintain(pool: Any) -> None:
    pool._pool.maintain_pool()  # noqa: SLF001  # the public way waits for its own timer
