"""Messages of steps and turns as the worker's parent process sees them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from celery.exceptions import Ignore
from celery.worker.request import Request
from redis.exceptions import RedisError

from canvas import engine as engines
from canvas import granted, interrupting, lives
from status.advice import advice
from status.records import PartRef
from status.tokens import new_token

if TYPE_CHECKING:
    from canvas.engine import Engine

logger = logging.getLogger("celeriac")


class StepRequest(Request):
    """Gives each delivery its token, and gives the claim back when the process that held it is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.celeriac_ref = PartRef.parse(self.id)
        # Made here and not in the child, so that parent and child know the same claim by it.
        self.celeriac_token = new_token()
        self.request_dict["celeriac_token"] = self.celeriac_token
        self.celeriac_interrupted = False

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery does; and if the child could not say how it ended, its claim is released."""
        super().on_failure(exc_info, *args, **kwargs)
        if not kwargs.get("return_ok"):
            self._release()
            own: Any = self
            _give_away_all(engines.of(own._app), own.worker_pid)  # noqa: SLF001  # our own base's
        elif self.celeriac_interrupted and isinstance(exc_info.exception, Ignore):
            cast("Any", self)._announce_revoked("terminated", True, interrupting.SIGNAL, False)  # noqa: SLF001  # our base

    def _release(self) -> None:
        if self.celeriac_ref is not None:
            release(engines.of(cast("Any", self)._app), self.celeriac_ref, self.celeriac_token)  # noqa: SLF001  # our own base's


def release(engine: Engine, ref: PartRef, token: str) -> bool:
    """The process that held a claim is gone: give its step to another. Returns whether it was still to be done."""
    # Should Redis not answer: the worker's event loop must not wait for it.
    ending = lives.release(engine, ref, token)
    if ending is not None and ending.code == "none":
        # Its step had ended: then the process was taking the turn that followed.
        lives.turn_died(engine, ref.run_id)
    return ending is not None and ending.code != "none"


class TurnRequest(Request):
    """Sends the turn again when the process that took it is gone."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery does; and if the child is gone, its turn goes to another at once."""
        super().on_failure(exc_info, *args, **kwargs)
        if not kwargs.get("return_ok"):
            own: Any = self
            engine = engines.of(own._app)  # noqa: SLF001  # our own base's
            lives.turn_died(engine, self.id.partition("/")[0], own.worker_pid)
            _give_away_all(engine, own.worker_pid)


def give_away(engine: Engine, orphans: Sequence[granted.Held]) -> None:
    """What a process had in place that has died goes to others.

    Raises:
        RedisError: Redis does not answer; the next beat of the worker's heart finds all of it again.
    """
    for found in orphans:
        if found.leads:
            engine.store.lapse(found.ref.run_id, found.token)
            continue
        if not found.running:  # what else the process had was not what it died of
            engine.store.leaving(found.ref.run_id, [(found.ref.n, found.ref.p, found.token)])
        if release(engine, found.ref, found.token):
            logger.warning("%s: its process is gone", found.ref.step_id)
    for found in orphans:
        granted.clear(found.token)


def _give_away_all(engine: Engine, pid: int) -> None:
    # Now, and not with the next beat of the heart: the process that takes this one's place writes over it.
    orphans = [found for found in granted.in_place() if found.pid == pid and not granted.is_there(pid)]
    try:
        give_away(engine, orphans)
    except RedisError as error:
        logger.warning("what process %d had in place is not given away yet: %s", pid, advice(error))
