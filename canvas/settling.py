"""The second half of an attempt's life (see `canvas.perform`): write down what came of it, and go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never, cast

from canvas import engine as engines
from canvas import granted
from canvas.outcomes import Again, Done, Failed, encode_error
from canvas.perform import Attempt, Here, name_of
from status.ahead import Finish, GivenBack, Gives, Kind
from status.records import NONE_WANTED, Ending, PartRef, Wanted

if TYPE_CHECKING:
    from celery import Celery

    from canvas.engine import Engine
    from canvas.step import Step


def settle(request: Any, app: Celery) -> Ending | None:
    """Write down what came of the attempt on `request`. The one place where a step changes state.

    Returns:
        What is to be done next, or None if there is nothing to write, or not now.
    """
    done: Attempt | None = getattr(request, "celeriac_attempt", None)
    if done is None:
        return None
    request.celeriac_attempt = None
    engine = engines.of(app)
    here: Here | None = request.get("celeriac_here")
    if here is None:
        gives: Gives = "all" if engine.workflow(request.chord.get("task", "")) is not None else ""
        ending = _recorded(engine, [finish_of(name_of(request), done, gives, _next_item(engine, request))], ())
        granted.forget(done.token)
        return ending
    return _settle_here(engine, here, finish_of(name_of(request), done, here.gives, here.wanted))


def _settle_here(engine: Engine, here: Here, finish: Finish) -> Ending | None:
    """Write it down, or keep it for what its turn does next."""
    if here.keeps in ("all", finish.kind):
        here.kept = finish._replace(gives="", ended_ms=here.now_ms())
        return None
    here.gave_back = finish.kind == "failed" and bool(here.unbegun)
    return _recorded(engine, [*here.before, finish], here.unbegun if here.gave_back else ())


def write_here(engine: Engine, here: Here, finish: Finish, workflow: str) -> None:
    """The same, and go on, of a step that went without Celery's tracer (see `canvas.untraced`)."""
    here.ending = _settle_here(engine, here, finish)
    if here.ending is not None:
        _go_on(engine, finish.ref, here.ending, workflow)


def finish_of(name: str, done: Attempt, gives: Gives, wanted: Wanted) -> Finish:
    """An attempt as the store wants it."""
    kind: Kind
    match done.outcome:
        case Done(_, text):
            kind, outcome, line, delay_s = "done", "v" + text, "", 0.0
        case Failed(_, info):
            kind, outcome, line, delay_s = "failed", encode_error(info), _line(info), 0.0
        case Again(_, info, delay_s):
            kind, outcome, line = "retry", encode_error(info), _line(info)
        case _:
            assert_never(done.outcome)
    return Finish(done.ref, done.token, kind, outcome, done.began_ms, round(delay_s * 1000), line, gives, name, wanted)


def _recorded(engine: Engine, finishes: Sequence[Finish], given_back: Sequence[GivenBack]) -> Ending | None:
    """What came of the last of these, once they are recorded."""
    endings = engine.patiently(lambda: engine.store.record(finishes, given_back))
    if endings is None:
        return None
    engine.follow_others(finishes[-1].ref.run_id, endings[:-1])
    return endings[-1]


def write_down(request: Any, app: Celery) -> None:
    """Settle the attempt on `request` and go on; the turn that it may owe is taken by `after_return`."""
    ref: PartRef | None = PartRef.parse(request.id)
    ending = settle(request, app)
    if ref is None or ending is None:
        return
    owes = _go_on(engines.of(app), ref, ending, request.chord.get("task"))
    here: Here | None = request.get("celeriac_here")
    if here is not None:
        here.ending = ending
    elif owes or ending.grant is not None:
        # Not now: the tracer first measures and reports the step itself.
        request.celeriac_owes = (ref.run_id, ending)


def _go_on(engine: Engine, ref: PartRef, ending: Ending, workflow: str | None) -> bool:
    # What this process was granted is not sent.
    sent = ending if ending.grant is None else replace(ending, publish=())
    return engine.go_on(ref.run_id, sent, workflow)


def after_return(step: Step[Any, Any]) -> None:
    """Run the items of a batch, or take the turn, that the attempt which has just been written down leads to."""
    request: Any = step.request
    owed = getattr(request, "celeriac_owes", None)
    if not owed:
        return
    request.celeriac_owes = None
    run_id, ending = owed
    if ending.grant is not None:
        in_place, wanted = request.celeriac_items
        ending = in_place.run_items(ending, wanted, request.chord["task"])
    if ending is not None and ending.code == "decided":
        engines.of(step.app).turn_here(run_id, ending.record)


def _next_item(engine: Engine, request: Any) -> Wanted:
    """Of a batch's part: the claim on the item that gets its place, if this process may run that too."""
    # What another code base has asked for goes by its messages, which say how it is to be run.
    own = request.get("celeriac_batch") and not request.get("celeriac_service")
    in_place = engine.in_place() if own else None
    if in_place is None:
        return NONE_WANTED
    wanted = in_place.next_item(request.root_id, cast("Any", engine.app.tasks[request.task]))
    request.celeriac_items = in_place, wanted
    return wanted


def _line(info: Any) -> str:
    return f"{info.error_type.rpartition('.')[2]}: {info.message}"[:200]
