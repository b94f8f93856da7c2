"""Messages of steps and turns as the worker's parent process sees them."""

from __future__ import annotations

import logging
from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

from celery.worker.request import Request
from redis.exceptions import RedisError

from canvas import engine as engines
from canvas.lives import lives_used_up, turn_died
from canvas.outcomes import encode_unknown
from status.records import PartRef

if TYPE_CHECKING:
    from canvas.engine import Engine

logger = logging.getLogger("celeriac")


class StepRequest(Request):
    """Gives each delivery its token, and gives the claim back when the process that held it is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.celeriac_ref = PartRef.parse(self.id)
        # Made here and not in the child, so that parent and child know the same claim by it.
        self.celeriac_token = token_hex(16)
        self.request_dict["celeriac_token"] = self.celeriac_token

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery does; and if the child could not say how it ended, its claim is released."""
        super().on_failure(exc_info, *args, **kwargs)
        if not kwargs.get("return_ok"):
            self._release()

    def _release(self) -> None:
        if self.celeriac_ref is not None:
            release(engines.of(cast("Any", self)._app), self.celeriac_ref, self.celeriac_token)  # noqa: SLF001  # our own base's


def release(engine: Engine, ref: PartRef, token: str) -> None:
    """The process that held a claim is gone: give its step to another."""
    outcome = encode_unknown(lives_used_up())
    try:
        ending = engine.store.release(ref, token=token, call_token=token_hex(16), outcome=outcome)
        if engine.go_on(ref.run_id, ending):
            engine.send_turn_of(ref.run_id)
    except RedisError as error:
        # The worker's event loop must not wait for Redis; nobody vouches for the claim, so the sweep takes it.
        logger.warning("%s: its process is gone, its claim ends by itself: %s", ref.step_id, error)
        return
    if ending.code == "none":
        # Its step had ended: then the process was taking the turn that followed.
        turn_died(engine, ref.run_id)


class TurnRequest(Request):
    """Sends the turn again when the process that took it is gone."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery does; and if the child is gone, its turn goes to another at once."""
        super().on_failure(exc_info, *args, **kwargs)
        if not kwargs.get("return_ok"):
            turn_died(engines.of(cast("Any", self)._app), self.id.partition("/")[0])  # noqa: SLF001  # our own base's
