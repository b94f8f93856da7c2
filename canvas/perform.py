"""The first half of an attempt's life: claim it and perform it. What came of it is written down by `canvas.settling`.

begin ──▶ perform ──▶ (Celery's tracer, the backend's chord hook) ──▶ settle ──▶ go on
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, assert_never, cast
from uuid import uuid4

from celery.exceptions import Ignore
from celery.exceptions import Reject as CeleryReject
from celery.exceptions import Retry as CeleryRetry
from redis.exceptions import RedisError

from canvas import engine as engines
from canvas import granted, hooks, lives, time_limits, undoing
from canvas.context import CurrentStep, leave_step, running_as
from canvas.interrupting import Interrupted, interruptible, was_cut
from canvas.outcomes import Again, Done, Failed, Outcome, as_exception, describe, is_failure
from canvas.retry import Retry
from status.advice import advice
from status.ahead import Finish, GivenBack, Gives
from status.errors import ConfigError, PayloadError
from status.records import NONE_WANTED, Ending, Grant, PartRef, Wanted

if TYPE_CHECKING:
    from canvas.step import Step

logger = logging.getLogger("celeriac")

#: How long the last few bodies of each step took in this process.
took_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=8))

#: How long a message waits in its slot for Redis, or for the end of its grace, before it goes back to its queue.
BEGIN_PATIENCE_S = 10.0


@dataclass(slots=True)
class Here:
    """A step that its turn runs by itself (see `canvas.in_place`).

    Attributes:
        token: Of its claim, which is granted.
        since_s: When it was, by this process' clock.
        gives: See `Finish`.
        wanted: The item of a batch that is run next.
        keeps: What of it may be recorded later, with what its turn does next: nothing, its success, or whatever it is.
        before: What was kept so of other parts of its join.
        unbegun: Claims of this process on others, which are given back if it fails.
        kept: What came of it, if that is yet to be recorded.
        ending: What came of recording it.
        gave_back: Whether others were given back with that.
    """

    token: str
    grant: Grant
    since_s: float
    gives: Gives = ""
    wanted: Wanted = NONE_WANTED
    keeps: Literal["", "done", "all"] = ""
    before: Sequence[Finish] = ()
    unbegun: Sequence[GivenBack] = ()
    kept: Finish | None = None
    ending: Ending | None = None
    gave_back: bool = False

    def now_ms(self) -> int:
        """By the clock of Redis, as far as this process knows it: not later than that."""
        return self.grant.now_ms + int((monotonic() - self.since_s) * 1000)


class Attempt(NamedTuple):
    """One attempt that this process has been granted."""

    ref: PartRef
    token: str
    began_ms: int
    outcome: Outcome


def attempt(step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a step that a message asks for, as Celery's tracer calls it.

    What it gives or raises is for the tracer; the outcome proper is kept on the request, for `settle`.

    Raises:
        Ignore: The claim was refused: somebody else has it, or nobody wants it any more.
        Reject: Redis does not answer; the message goes back.
    """
    request: Any = step.request
    ref = PartRef.parse(request.id or "")
    if ref is None or not request.chord:
        return _as_plain_task(step, args, kwargs)
    token = request.get("celeriac_token") or uuid4().hex
    policy = policy_of(step, request.get("celeriac_retry"))
    here: Here | None = request.get("celeriac_here")
    grant = here.grant if here else _begin(step, ref, token, policy)
    began_ms = here.now_ms() if here else grant.now_ms
    current = current_of(step, ref, args, kwargs, grant, key=request.get("celeriac_key"))
    current.undoes = request.get("celeriac_undoes")
    try:
        outcome = _outcome(step, ref, token, lambda: _body(step, args, kwargs, current, policy, token))
    finally:
        if here is None:
            time_limits.body_is_over()
    request.celeriac_attempt = Attempt(ref, token, began_ms, outcome)
    match outcome:
        case Done(value):
            return value
        case Failed(error):
            raise error
        case Again(error, info, delay_s):
            raise CeleryRetry(message=info.message, exc=error, when=cast("Any", delay_s))
        case _:
            assert_never(outcome)


def _outcome(step: Step[Any, Any], ref: PartRef, token: str, work: Callable[[], Outcome]) -> Outcome:
    request: Any = step.request
    refused = _refused(step, request)
    if refused is not None:
        return Failed(refused, describe(refused, step=step.name))
    body = partial(_interruptibly, step, token, work) if step.interruptible else work
    try:
        return undoing.logged(request.get("celeriac_log"), body)
    except Interrupted:
        # As if its process had been killed: nothing is written down but that nobody has the claim.
        lives.release(engines.of(step.app), ref, token)
        logger.info("%s attempt %d is interrupted: nobody waits for it", ref.step_id, ref.attempt)
        raise Ignore from None


def _body(step: Step[Any, Any], args: Any, kwargs: Any, current: CurrentStep, policy: Retry, token: str) -> Outcome:  # noqa: PLR0917
    unfit = hooks.failed(step.request)
    if unfit is not None:
        return _judge(unfit, step, current, policy)
    return perform(
        step, args, kwargs, current, policy, is_cut=partial(was_cut, token) if step.interruptible else _never
    )


def _interruptibly(step: Step[Any, Any], token: str, work: Callable[[], Outcome]) -> Outcome:
    try:
        return interruptible(token, work)
    finally:
        if was_cut(token):  # anywhere: perhaps where it would have left its thread, or in the middle of a call of Redis
            leave_step()
            engines.of(step.app).drop_connections()


def current_of(
    step: Step[Any, Any], ref: PartRef, args: Any, kwargs: Any, grant: Grant, *, key: str | None
) -> CurrentStep:
    """What `current_step()` is in this attempt."""
    return CurrentStep(
        run_id=ref.run_id,
        step_id=ref.step_id,
        idempotency_key=key or ref.idempotency_key,
        attempt=ref.attempt,
        deadline=datetime.fromtimestamp(grant.deadline_ms / 1000, UTC) if grant.deadline_ms else None,
        step_name=step.name,
        arguments=(args, kwargs),
        ask_stopped=lambda: engines.of(step.app).store.stopped(ref),
    )


def _refused(step: Step[Any, Any], request: Any) -> ConfigError | None:
    """Why a call from another code base can't be run: what a crash means is in its message, and must fit the step."""
    if step.idempotent or not request.get("celeriac_service") or request.get("celeriac_once"):
        return None
    return ConfigError(
        f"step {step.name} is idempotent=False, which its caller does not know: write "
        "ServiceClient(..., idempotent=False) there"
    )


def limits(step: Step[Any, Any], policy: Retry, attempt: int) -> tuple[int, int]:
    """How long one attempt may take, ms or 0, and how long after that the next one starts, ms, or -1 if none does."""
    if not step.timeout_s:
        return 0, -1
    delay_s = policy.delay_s(attempt, None)
    return round(step.timeout_s * 1000), -1 if delay_s is None else round(delay_s * 1000)


def policy_of(step: Step[Any, Any], timing: Any) -> Retry:
    """Of a message: its own, or else the step's."""
    return Retry.from_timing(timing) if timing else step.policy


def _begin(step: Step[Any, Any], ref: PartRef, token: str, policy: Retry) -> Grant:
    time_limits.spare(step)
    try:
        return _claim(step, ref, token, policy)
    except BaseException:
        time_limits.spare_nothing()
        raise


def _claim(step: Step[Any, Any], ref: PartRef, token: str, policy: Retry) -> Grant:
    timeout_ms, retry_in_ms = limits(step, policy, ref.attempt)
    engine, request = engines.of(step.app), cast("Any", step.request)
    widens_by = engine.widens_by(step) if request.get("celeriac_batch") == "wide" else 0
    end_s, wait_s = monotonic() + BEGIN_PATIENCE_S, 0.05
    while True:
        try:
            grant = engine.store.begin(
                ref,
                token=token,
                where=request.hostname or "",
                interruptible=step.interruptible,
                timeout_ms=timeout_ms,
                retry_in_ms=retry_in_ms,
                name=name_of(request),
                widens_by=widens_by,
            )
            if grant.code != "grace":
                break
            why = "Redis was restarted, what runs comes first"
        except RedisError as error:
            why = advice(error)
        # In this slot, and not by way of the queue: it would come back at once, and no other step may begin either.
        if monotonic() + wait_s > end_s:
            raise CeleryReject(f"{ref.step_id} has not begun, its message goes back: {why}", requeue=True)
        sleep(wait_s)
        wait_s = min(wait_s * 2, 0.25)
    if not grant.granted:
        logger.info("%s attempt %d is not run: %s", ref.step_id, ref.attempt, grant.code)
        raise Ignore
    granted.note(token)
    if grant.publish:
        engine.publish(ref.run_id, grant.publish, request.chord.get("task"))
    return grant


def _never() -> bool:
    return False


def perform(
    step: Step[Any, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    current: CurrentStep,
    policy: Retry,
    *,
    is_cut: Callable[[], bool] = _never,
) -> Outcome:
    """Call the user's function: the one place where that happens.

    Args:
        is_cut: Whether it was interrupted. What it raised then is for who interrupted it.
    """
    try:
        positional, named = step.codec.decode(args, kwargs)
        start_s = monotonic()
        with running_as(current), time_limits.body_of(step):
            value = step.run(*positional, **named)
        took_s[step.name].append(monotonic() - start_s)
        return Done(value, step.codec.result.dumps(value))
    except (CeleryRetry, CeleryReject, Ignore) as error:
        # Celery's own signals would go past the journal; the step has simply failed.
        return _judge(PayloadError(f"{step.name} raised Celery's {type(error).__name__}"), step, current, policy)
    except Exception as error:  # noqa: BLE001  # whatever it raised is an outcome
        return _judge(error, step, current, policy)
    except BaseException as error:
        if is_cut() or not is_failure(error):
            raise
        return _judge(as_exception(error, step.name), step, current, policy)


def _judge(error: Exception, step: Step[Any, Any], current: CurrentStep, policy: Retry) -> Outcome:
    info = describe(error, step=step.name, attempts=current.attempt)
    delay_s = policy.delay_s(current.attempt, error)
    return Failed(error, info) if delay_s is None else Again(error, info, delay_s)


def _as_plain_task(step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A step in stock canvas: no run knows of it; arguments and result are still typed."""
    time_limits.spare_nothing()
    unfit = hooks.failed(step.request)
    if unfit is not None:
        raise unfit
    positional, named = step.codec.decode(args, kwargs)
    return step.codec.result.jsonable(step.run(*positional, **named))


def name_of(request: Any) -> str:
    """How events call the step: by its label, where it has one."""
    return str(request.get("shadow") or request.task)
