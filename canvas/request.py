"""Messages of steps and turns as the worker's parent process sees them."""

from __future__ import annotations

import logging
import threading
from collections import deque
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
            own: Any = self
            # The turn that follows a step is on the board.
            had_more = _died(engines.of(own._app), own.worker_pid)  # noqa: SLF001  # our own base's
            self._release(may_owe=not had_more)
        elif self.celeriac_interrupted and isinstance(exc_info.exception, Ignore):
            cast("Any", self)._announce_revoked("terminated", True, interrupting.SIGNAL, False)  # noqa: SLF001  # our base

    def _release(self, *, may_owe: bool = True) -> None:
        if self.celeriac_ref is not None:
            engine = engines.of(cast("Any", self)._app)  # noqa: SLF001  # our own base's
            release(engine, self.celeriac_ref, self.celeriac_token, may_owe=may_owe)


def release(engine: Engine, ref: PartRef, token: str, *, may_owe: bool = True) -> bool:
    """The process that held a claim is gone: give its step to another. Returns whether it was still to be done.

    Args:
        may_owe: If the step had ended, the process may have died in the run's turn.
    """
    # Should Redis not answer: the worker's event loop must not wait for it.
    ending = lives.release(engine, ref, token)
    if may_owe and ending is not None and ending.code == "none":
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
            # It may have gone on with another run's turn, and then this one's was over.
            if not _died(engine, own.worker_pid):
                lives.turn_died(engine, self.id.partition("/")[0])


def _died(engine: Engine, pid: int | None) -> bool:
    """A process has died, so give away what it had. Returns whether the board has said of anything."""
    if pid is None:  # it had not begun
        return False
    try:
        return give_away(engine, pid)
    except RedisError as error:
        logger.warning("what process %s had in place is not given away yet: %s", pid, advice(error))
    return True


#: The heartbeat and the event loop may both find that a process is gone: what it had is given away once, and the other
#: knows it from these process ids.
_giving = threading.Lock()
_gone: deque[int] = deque(maxlen=16)


def give_away(engine: Engine, pid: int) -> bool:
    """What a process that is gone had in place goes to others, and so do the turns that it had taken.

    Returns:
        Whether it had any, by what the board says or said.

    Raises:
        RedisError: Redis does not answer; the next beat of the worker's heart finds all of it again.
    """
    with _giving:
        if granted.is_there(pid):
            return False
        found = [one for one in granted.in_place() if one.pid == pid]
        began = {one.ref.run_id for one in found if not one.taken}
        for one in found:
            if one.leads:
                engine.store.lapse(one.ref.run_id, one.token)
                lives.turn_died(engine, one.ref.run_id)
            elif not one.taken:
                _give_away_step(engine, one)
            elif one.ref.run_id not in began:
                lives.turn_died(engine, one.ref.run_id, of_it=False)
        for one in found:
            granted.clear(one.token)
        if found:
            _gone.append(pid)
        return pid in _gone


def _give_away_step(engine: Engine, held: granted.Held) -> None:
    if not held.running:  # what else the process had was not what it died of
        engine.store.leaving(held.ref.run_id, [(held.ref.n, held.ref.p, held.token)])
    if release(engine, held.ref, held.token):
        logger.warning("%s: its process is gone", held.ref.step_id)
