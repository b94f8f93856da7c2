"""What a turn does before it records anything; and a run that can't go on now waits, with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from canvas.outcomes import Decision, describe
from canvas.run import Run
from status.ahead import Ahead
from status.errors import ErrorInfo, LogUnavailable
from status.models import error_to_json
from status.records import RunRecord

if TYPE_CHECKING:
    from canvas.engine import Engine

T = TypeVar("T")

logger = logging.getLogger("celeriac")

#: After so many ticks a parked run is looked at again: one that waits for other code, and one that waits for the
#: log of its sagas, which may be back any moment.
CODE_LOOK_TICKS, LOG_LOOK_TICKS = 10, 3


def seen_of(record: RunRecord, n: int | None = None) -> str:
    """The end of the journal, as the scripts know it again: the nonce of its last await and who decided that, or ''.

    After a retry, or in a new round, as it was recorded with that.

    Args:
        n: The await after it, where that is known: a long journal is not searched then.
    """
    if "#" in record.fields["seen"]:
        return record.fields["seen"]
    after = n if n is not None else 1 + max((int(field) for field in record.journal if field.isdigit()), default=-1)
    last = Decision.read(record.journal, after - 1, 0)
    return f"{last.nonce}|{last.by}" if last else ""


def park(engine: Engine, record: RunRecord, info: ErrorInfo, look_in_ticks: int = CODE_LOOK_TICKS) -> bool:
    """Let the run wait. Returns whether the turn is over; else it starts again from a journal that has moved on."""
    if not caught_up(engine, record):
        return False
    logger.warning("run %s is parked: %s", record.run_id, info.message)
    engine.store.park(record.run_id, seen=seen_of(record), error=error_to_json(info), look_in_ticks=look_in_ticks)
    return True


def wrote_ahead(engine: Engine, record: RunRecord, run: Run) -> bool:
    """Do the writes that must be there before the turn records anything. False: not now, the run waits."""
    try:
        run.write_ahead()
    except LogUnavailable as error:
        park(engine, record, describe(error), look_in_ticks=LOG_LOOK_TICKS)
        return False
    return True


def going_on(engine: Engine, record: RunRecord, call: Callable[[], T]) -> T | None:
    """Make a transition of a turn that may be ahead of the journal. None: Redis is away for long; the turn is over."""
    ahead = record.ahead
    if ahead is None or ahead.recorded:
        return call()
    answer = engine.patiently(call)
    _follow(engine, record, ahead)
    return answer


def caught_up(engine: Engine, record: RunRecord) -> bool:
    """Record by itself what the turn has gone on with. False: something else is recorded, or nothing."""
    ahead = record.ahead
    if ahead is None or ahead.recorded:
        return True
    if ahead.passages:
        going_on(engine, record, lambda: engine.store.pass_by(record.run_id, ahead))
        return ahead.recorded
    *others, last = ahead.finishes
    finishes = [*others, last._replace(gives=len(ahead.finishes))]
    endings = engine.patiently(lambda: engine.store.record(finishes))
    if endings is None:
        return False
    ahead.endings, found = endings, endings[-1].entries
    _follow(engine, record, ahead)
    places = {f"{finish.ref.n}.{finish.ref.p}": finish.outcome for finish in finishes}
    ahead.recorded = endings[-1].code == "decided" and places.items() <= found.items()
    return ahead.recorded


def _follow(engine: Engine, record: RunRecord, ahead: Ahead) -> None:
    """Send and stop what the endings ask for, and say what was recorded. A decision is followed by this turn itself."""
    if ahead.recorded:
        ahead.tell()
        engine.events.went([(passage.before, passage.news) for passage in ahead.passages if passage.before])
    engine.follow_others(record.run_id, ahead.endings[:-1])
    for ending in ahead.endings[-1:]:
        engine.go_on(record.run_id, ending, record.workflow)
