"""A turn: replay, then open what the workflow asks for, or write down how it ended. Waits for nobody."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, assert_never

from canvas import children, passing, tracing
from canvas.context import taking_turn
from canvas.lives import is_given_up
from canvas.opening import open_await
from canvas.outcomes import asked_at, describe
from canvas.parking import caught_up, going_on, park, seen_of, wrote_ahead
from canvas.patches import Patches
from canvas.payload import compact
from canvas.replay import Asks, DoesNotLetGo, Move, Parked, Raised, Replay, Restarts, Returned, Stopped, mismatch
from canvas.run import Run
from canvas.waitables import Recipe
from status.errors import ErrorInfo, OrchestrationError, PayloadError
from status.models import error_to_json
from status.records import RunRecord
from status.rounds import Round
from status.states import FINAL, State
from status.tokens import new_token

if TYPE_CHECKING:
    from canvas.engine import Engine
    from canvas.in_place import InPlace
    from canvas.workflow import Workflow

logger = logging.getLogger("celeriac")

#: A turn that starts over so often (it was overtaken, or a message was there already) makes room for others. If the run
#: has moved on meanwhile it goes on as a message; if not, nobody knows why, and the sweep looks again later.
STARTS = 50

#: More user code than this in one turn keeps a worker's slot from its steps.
SLOW_TURN_S = 1.0


def take_turn(engine: Engine, run_id: str, record: RunRecord | None = None) -> None:
    """Bring a run to its next await, or to its end.

    Safe to call twice, at once or later: what it records is accepted only where the journal is as it was read.

    Args:
        record: The run as it was a moment ago; None: it is read.

    Raises:
        TurnTaken: Another process has it.
    """
    began = stands = None
    lease = record.lease.token if record and record.lease else new_token() if engine.goes_ahead else ""
    for _ in range(STARTS):
        record = record or engine.store.load_to_go_on(run_id, lease=lease)
        if record is None or record.fields["state"] in FINAL:
            return
        workflow = engine.workflow(record.workflow)
        if workflow is None:
            # A step's worker may know nothing of the workflow; whoever serves its turns does.
            engine.store.lapse(run_id, lease)
            engine.send_turn(run_id, record.workflow, queue=record.fields.get("queue", ""))
            return
        stands = record.fields["seen"]
        began = stands if began is None else began
        if is_given_up(record):
            return  # its code kills the process: not again, until somebody retries or abandons it
        with taking_turn(run_id, workflow.name):
            over = _turn(engine, workflow, record)
        if over:
            return
        record = None
    if stands == began:
        logger.warning(
            "%s: its turn started over %d times and the run stands, the sweep will send another", run_id, STARTS
        )
    else:
        engine.send_turn_of(run_id)


def asked_by(engine: Engine, run_id: str) -> Recipe | None:
    """What a run waits for, if this process knows its workflow; nothing is changed."""
    record = engine.store.load(run_id)
    workflow = engine.workflow(record.workflow) if record else None
    if record is None or workflow is None or record.fields["state"] in FINAL:
        return None
    with _replay(workflow, record) as play:
        move = play.go_on(record.journal)
    return move.recipe if isinstance(move, Asks) else None


def _replay(workflow: Workflow[Any, Any], record: RunRecord) -> Replay:
    fields = record.fields
    deadline_ms = int(fields.get("deadline_ms") or 0)
    run = Run(record.run_id, record.workflow, int(fields["submitted_ms"]), deadline_ms, record.generations)
    run.patches = Patches.of(fields)
    run.in_round(Round.of(fields)).write_input = workflow.write_input
    args, kwargs = workflow.read_input(fields.get("round_input") or fields["input"])
    return Replay(workflow.body, run, args, kwargs)


def _turn(engine: Engine, workflow: Workflow[Any, Any], record: RunRecord) -> bool:
    """Replay, and carry out what it comes to. Returns whether the turn is over."""
    try:
        play = _replay(workflow, record)
    except PayloadError as error:
        return park(engine, record, describe(error))
    in_place = engine.in_place()
    if in_place is not None:
        passing.lead(record, in_place)
    try:
        return _take(engine, workflow, record, play, in_place)
    finally:
        if in_place is not None:
            in_place.over()
        if play.took_s > SLOW_TURN_S:
            logger.warning(
                "%s: %.1f s of its own code in one turn of %s, %.1f s of them before %s: put what takes long in a step",
                record.run_id,
                play.took_s,
                workflow.name,
                *play.run.longest,
            )


def _take(
    engine: Engine, workflow: Workflow[Any, Any], record: RunRecord, play: Replay, in_place: InPlace | None
) -> bool:
    try:
        with play:
            record, move = _go_on(engine, record, play, in_place)
    except DoesNotLetGo as error:
        move = Parked(describe(error))
    return move if isinstance(move, bool) else _carry_out(engine, workflow, record, play.run, move)


def _go_on(engine: Engine, record: RunRecord, play: Replay, in_place: InPlace | None) -> tuple[RunRecord, Move | bool]:
    """Go on for as long as all that is asked for can be done in place.

    Returns:
        The run as it is then, and what is left to carry out, or whether the turn is over.
    """
    while True:
        move = play.go_on(record.journal)
        if in_place is None or not isinstance(move, Asks):
            return record, move
        up_to_date = passing.kept_up(record, in_place)
        if up_to_date is None:
            return record, False
        record = up_to_date
        here = in_place.choose(record.run_id, move)
        if here is None:
            return record, move
        if passing.may_pass(record, play.run, move, here):
            went = passing.Passing(here, record, play.run, move).go()
        else:
            went = open_await(engine, record, play.run, move, here)
        if isinstance(went, bool):
            return record, went
        record = went


def _carry_out(engine: Engine, workflow: Workflow[Any, Any], record: RunRecord, run: Run, move: Move) -> bool:
    """Record a move. Returns whether the turn is over; else it starts again from a journal that has moved on."""
    match move:
        case Asks():
            return open_await(engine, record, run, move) is True
        case Returned(value):
            return _return(engine, workflow, record, run, value)
        case Restarts(text):
            return _restart(engine, record, run, text)
        case Raised(error):
            if not isinstance(error, OrchestrationError):  # a step's failure is logged with the step
                logger.warning("run %s: its workflow raised", record.run_id, exc_info=error)
            return _end(engine, record, run, error=describe(error))
        case Stopped(error):
            info = describe(error)
            state = State.TIMED_OUT if error.code == 408 else State.CANCELLED
            return _end(engine, record, run, error=info, stopped=state)
        case Parked(info):
            return park(engine, record, info)
        case _:
            assert_never(move)


def _isopen_await(engine: Engine, record: RunRecord, run: Run) -> bool:
    """Whether an await is open at what the workflow now says is the end; then the run is parked."""
    still_open = record.fields["open"]
    if not still_open or still_open in record.journal:
        return False
    # Whoever opened it had read no more than this turn has: the workflow has taken another way.
    found = asked_at(*engine.store.open_as(record.run_id, int(still_open)))
    return park(engine, record, mismatch(run, int(still_open), f"{found or 'it'} open", "nothing more"))


def _return(engine: Engine, workflow: Workflow[Any, Any], record: RunRecord, run: Run, value: Any) -> bool:
    try:
        text = workflow.codec.result.dumps(value)
    except PayloadError as error:
        return _end(engine, record, run, error=describe(error))
    return _end(engine, record, run, result=text)


def _restart(engine: Engine, record: RunRecord, run: Run, input_json: str) -> bool:
    if not caught_up(engine, record):
        return False
    if _isopen_await(engine, record, run) or not wrote_ahead(engine, record, run):
        return True
    answer = engine.store.restart(
        record.run_id,
        seen=seen_of(record, run.next_await),
        token=new_token(),
        input_json=input_json,
        first=run.next_await,
        entered=run.entered,
        carried=compact(run.status),
        news=run.news(),
    )
    if answer == "restarted":
        run.let_out()
        # Not here and now: a run without end would let nobody else have this process.
        engine.send_turn(record.run_id, record.workflow)
    return answer != "moved"


def _end(
    engine: Engine,
    record: RunRecord,
    run: Run,
    *,
    result: str = "",
    error: ErrorInfo | None = None,
    stopped: State | None = None,
) -> bool:
    if run.writes and not caught_up(engine, record):
        return False
    if _isopen_await(engine, record, run) or not wrote_ahead(engine, record, run):
        return True
    state, news, token = _final_state(run, error, stopped), run.news(), new_token()
    answer = going_on(
        engine,
        record,
        lambda: engine.store.complete(
            record.run_id,
            seen=seen_of(record, run.next_await),
            token=token,
            state=state,
            result=result,
            error=error_to_json(error) if error else "",
            news=news,
            ahead=record.ahead,
        ),
    )
    if answer == "completed":
        run.let_out()
        engine.events.ended(record, news, state, result, error)
        tracing.ended(record, state, error)
        if record.fields.get("tells"):
            children.tell(engine, record.run_id)
        logger.info("run %s %s", record.run_id, compact({"state": state, "error": error.message if error else None}))
    return answer != "moved"


def _final_state(run: Run, error: ErrorInfo | None, stopped: State | None) -> State:
    if error is None:
        return State.COMPLETED
    if run.undo_failed:
        return State.COMPENSATION_FAILED
    if stopped is not None:
        return stopped
    return State.COMPENSATED if run.undone else State.FAILED
