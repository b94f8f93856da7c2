"""Messages of steps and turns as the worker's parent process sees them."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

from celery.exceptions import Ignore
from celery.worker.request import Request

from canvas import engine as engines
from canvas import interrupting, lives
from status.records import PartRef

if TYPE_CHECKING:
    from canvas.engine import Engine


class StepRequest(Request):
    """Gives each delivery its token, and gives the claim back when the process that held it is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.celeriac_ref = PartRef.parse(self.id)
        # Made here and not in the child, so that parent and child know the same claim by it.
        self.celeriac_token = token_hex(16)
        self.request_dict["celeriac_token"] = self.celeriac_token
        self.celeriac_interrupted = False

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery does; and if the child could not say how it ended, its claim is released."""
        super().on_failure(exc_info, *args, **kwargs)
        if not kwargs.get("return_ok"):
            self._release()
        elif self.celeriac_interrupted and isinstance(exc_info.exception, Ignore):
            cast("Any", self)._announce_revoked("terminated", True, interrupting.SIGNAL, False)  # noqa: SLF001  # our base

    def _release(self) -> None:
        if self.celeriac_ref is not None:
            release(engines.of(cast("Any", self)._app), self.celeriac_ref, self.celeriac_token)  # noqa: SLF001  # our own base's


def release(engine: Engine, ref: PartRef, token: str) -> None:
    """The process that held a claim is gone: give its step to another."""
    # Should Redis not answer: the worker's event loop must not wait for it.
    ending = lives.release(engine, ref, token)
    if ending is not None and ending.code == "none":
        # Its step had ended: then the process was taking the turn that followed.
        lives.turn_died(engine, ref.run_id)


class TurnRequest(Request):
    """Sends the turn again when the process that took it is gone."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery does; and if the child is gone, its turn goes to another at once."""
        super().on_failure(exc_info, *args, **kwargs)
        if not kwargs.get("return_ok"):
            lives.turn_died(engines.of(cast("Any", self)._app), self.id.partition("/")[0])  # noqa: SLF001  # our own base's
