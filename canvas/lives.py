"""What kills the process that runs it is not run for ever: steps and turns have lives, and then say so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import uuid4

from redis.exceptions import RedisError

from canvas.outcomes import encode_unknown, unknown_outcome
from status.errors import ErrorInfo
from status.models import error_to_json

if TYPE_CHECKING:
    from canvas.engine import Engine
    from status.records import Ending, PartRef, RunRecord

logger = logging.getLogger("celeriac")


def lives_used_up() -> ErrorInfo:
    """The error of a step that is given up. `release.lua` fills in the words in braces."""
    return unknown_outcome(
        "step {step} lost its process {lost} time(s), on {where}, and has {lives} such lives; whether it had its "
        "effect is not known. The log of that worker says how the process ended (signal 9 is often memory). Mend the "
        "step; if it is only unlucky, give it more lives: CELERIAC_MAX_LIVES (one with idempotent=False has 1)"
    )


def release(engine: Engine, ref: PartRef, token: str) -> Ending | None:
    """Nobody holds a claim any more, and its attempt has not said how it ended: give its step to another, if need be.

    Returns:
        What came of it; None: Redis did not answer. Nobody vouches for the claim, so the sweep takes it.
    """
    outcome = encode_unknown(lives_used_up())
    try:
        ending = engine.store.release(ref, token=token, call_token=uuid4().hex, outcome=outcome)
        if engine.go_on(ref.run_id, ending):
            engine.send_turn_of(ref.run_id)
    except RedisError as error:
        logger.warning("%s: nobody runs it any more, its claim ends by itself: %s", ref.step_id, error)
        return None
    return ending


def turn_lives_used_up(run_id: str, workflow: str) -> ErrorInfo:
    """The error of a run whose turn is given up. `enter.lua` fills in the words in braces."""
    message = (
        f"the workflow's own code killed its process {{lost}} time(s), on {{where}}: {workflow} is not run again for "
        f"{run_id}. Nothing was undone. The log of that worker says how the process ended (signal 9 is often memory). "
        "Mend the workflow or put that work in a step, start the workers with it, then `runs retry` it; or end it as "
        "it stands: `runs cancel --abandon`"
    )
    return ErrorInfo(None, "GivenUp", message, 500)


def enter_again(engine: Engine, run_id: str, workflow: str, *, known: int, where: str) -> bool:
    """Whether a turn that was sent again may begin; if so, `engine.store.survived` is to be called after it."""
    error = error_to_json(turn_lives_used_up(run_id, workflow))
    answer = engine.store.enter(run_id, known=known, where=where, error=error, token=uuid4().hex)
    if answer == "given_up":
        logger.error("%s: its turn killed each process that took it, it is given up; see `runs show`", run_id)
    return answer == "begin"


def turn_died(engine: Engine, run_id: str, *, of_it: bool = True) -> None:
    """A process ended while, or after, it may have taken the run's turn: if that is still owed, send it again now.

    Args:
        of_it: The turn may have been what the process died of.
    """
    try:
        if engine.store.owes_turn(run_id):
            logger.warning("%s: the process that had its turn is gone, it is sent again", run_id)
            engine.send_turn_of(run_id, again=int(of_it))
    except RedisError as error:
        logger.warning("%s: the process that had its turn is gone, the sweep will send it: %s", run_id, error)


def is_given_up(record: RunRecord) -> bool:
    """Whether the run stands where its turn has killed too many processes."""
    fields = record.fields
    return fields["open"] == "" and fields.get("given_up") == fields["seen"]
