"""Opens what a turn asks for: on record first, then its parts are sent, or run in place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from canvas import children, tracing
from canvas.outcomes import asked_at
from canvas.parking import caught_up, going_on, park, seen_of, wrote_ahead
from canvas.replay import Asks, mismatch
from canvas.run import Run
from canvas.series import Series
from status.ahead import Finish
from status.records import Opening, PartRef, RunRecord, Wanted, nonce_of

if TYPE_CHECKING:
    from canvas.engine import Engine
    from canvas.in_place import Chosen

#: Parts that somebody must be sent; a sleep waits by itself.
SENT = frozenset({"step", "child", "canvas"})


def open_await(engine: Engine, record: RunRecord, run: Run, asks: Asks, here: Chosen | None = None) -> bool | RunRecord:
    """Open what the workflow asks for, and send its parts.

    Args:
        here: Those that are run in this process.

    Returns:
        Whether the turn is over, or the run as it is once its await was decided here.
    """
    # What is written there must not be ahead of the journal: the next turn might not come to it.
    if run.writes and not caught_up(engine, record):
        return False
    if not wrote_ahead(engine, record, run):
        return True
    asks, nonce = _named(run, asks), nonce_for(run, asks)
    series = Series(here, record, asks, nonce) if here else None
    wanted, meanwhile = (series.wanted, series.prepare) if series else ((), None)
    opening = going_on(
        engine,
        record,
        lambda: file_await(engine, record, run, asks, nonce=nonce, wanted=wanted, meanwhile=meanwhile),
    )
    return True if opening is None else follow(engine, record, run, asks, opening, series=series)


def nonce_for(run: Run, asks: Asks) -> str:
    """Of an await that is about to be opened."""
    return nonce_of(run.generations.of_await(asks.n))


def follow(
    engine: Engine, record: RunRecord, run: Run, asks: Asks, opening: Opening, *, series: Series | None = None
) -> bool | RunRecord:
    """Do what an opening asks for; see `open_await`."""
    match opening.code:
        case "opened":
            tell(engine, record, run)
            _send(engine, record, asks, opening, opening.waiting or dict.fromkeys(_at_once(asks), 1))
        case "granted" if series:
            series.granted(opening.grants)  # first of all, for nobody vouches for its claims before
            tell(engine, record, run)
            return _run_here(engine, record, asks, opening, series)
        case "exists":
            _send(engine, record, asks, opening, opening.waiting)
        case "foreign":
            found = asked_at(opening.found, opening.found_line)
            return park(engine, record, mismatch(run, asks.n, found, asked_at(asks.recipe.fingerprint, asks.line)))
        case "answered":
            tell(engine, record, run)
            return False
        case "moved":
            return False
    return True


def _named(run: Run, asks: Asks) -> Asks:
    """The same, with the run ids of children."""
    generation = run.generations.of_await(asks.n)
    if any(part.kind == "child" for part in asks.parts):
        return asks._replace(parts=children.with_run_ids(asks.parts, run.id, asks.n, generation))
    if asks.batch is not None:
        return asks._replace(batch=children.batch_with_run_ids(asks.batch, run.id, asks.n, generation))
    return asks


def file_await(
    engine: Engine,
    record: RunRecord,
    run: Run,
    asks: Asks,
    *,
    nonce: str,
    wanted: Sequence[Wanted] = (),
    late: Sequence[Finish] = (),
    meanwhile: Callable[[], object] | None = None,
) -> Opening:
    """Put an await on record. See `Store.open_join`."""
    recipe = asks.recipe
    return engine.store.open_join(
        record.run_id,
        asks.n,
        seen=seen_of(record, asks.n),
        nonce=nonce,
        fingerprint=recipe.fingerprint,
        policy=recipe.policy,
        parts=asks.parts,
        batch=asks.batch,
        need=recipe.need,
        state=recipe.state,
        undo=recipe.undo,
        timeout_ms=max(1, round(recipe.timeout_s * 1000)) if recipe.timeout_s else 0,
        wanted=wanted,
        news=run.news(),
        line=asks.line,
        ahead=record.ahead,
        late=late,
        meanwhile=meanwhile,
    )


def tell(engine: Engine, record: RunRecord, run: Run) -> None:
    """An await is on record: let out what was said on the way to it."""
    run.let_out()
    engine.events.moved(record, run.news())
    tracing.decided(record)


def _run_here(engine: Engine, record: RunRecord, asks: Asks, opening: Opening, series: Series) -> bool | RunRecord:
    send_rest(engine, record, asks, opening, series.wanted)
    performed = series.run()
    _send(engine, record, asks, opening, {str(p): 1 for p in performed.rest})
    return performed.record or True


def send_rest(engine: Engine, record: RunRecord, asks: Asks, opening: Opening, here: Sequence[Wanted]) -> None:
    """Send the parts that start at once, but for those that this process has."""
    mine = {wanted.p for wanted in here}
    _send(engine, record, asks, opening, {p: 1 for p in _at_once(asks) if p not in mine})


def _at_once(asks: Asks) -> Iterable[str]:
    """The parts that start when their join is opened."""
    if asks.batch is not None:
        return map(str, range(min(asks.batch.window, asks.batch.size)))
    return (str(p) for p, part in enumerate(asks.parts) if part.kind in SENT and not part.delay_ms)


def _send(engine: Engine, record: RunRecord, asks: Asks, opening: Opening, attempts: Mapping[str, int]) -> None:
    if asks.batch is not None:
        filed = engine.store.filed(record.run_id, asks.n, opening.nonce, attempts)
        engine.publish(record.run_id, filed, record.workflow)
        return
    rows = [
        (PartRef(record.run_id, asks.n, p, opening.nonce, attempt), _spec(asks, int(p)))
        for p, attempt in attempts.items()
        if asks.parts[int(p)].kind in SENT
    ]
    engine.send(record.run_id, rows, record.workflow)


def _spec(asks: Asks, p: int) -> dict[str, Any]:
    call, part = asks.recipe.parts[p], asks.parts[p]
    # A child's has its run id, which the call does not know.
    spec: dict[str, Any] = json.loads(part.spec) if part.kind == "child" else cast("Any", call).spec(part.queue)
    return spec
