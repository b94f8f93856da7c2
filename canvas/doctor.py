"""The doctor's look at app and workers: asks them, and hands what they said to the rules."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from canvas import engine as engines
from canvas.backlog import Backlog
from canvas.doctor_app import Setup, app_findings
from canvas.doctor_workers import Needs, Node, worker_findings
from canvas.pulse import Pulse
from canvas.worker_info import COMMAND, definitions, describe, is_workflow
from status.doctor_words import Finding, error
from status.places import without_password
from status.survey import waiting_runs

if TYPE_CHECKING:
    from celery import Celery

    from status.doctor import Visit

#: What each worker is asked, side by side: each question waits out its whole time for answers.
QUESTIONS = ("stats", "active_queues", COMMAND)


def look(visit: Visit) -> Iterator[Finding]:
    """All about the app and its workers."""
    app = visit.app
    app.loader.import_default_modules()
    yield from app_findings(setup_of(app))
    try:
        nodes = ask_workers(app, visit.timeout_s)
        needs = needs_of(visit)
    except (OperationalError, RedisError, OSError) as failure:
        yield error(
            "broker",
            f"the broker at {without_password(str(app.conf.broker_url))} does not answer "
            f"({' '.join(str(failure).split())})",
            "start it, or correct broker_url",
        )
        return
    yield from worker_findings(nodes, needs, visit.app_name, visit.timeout_s)


# --- the app --------------------------------------------------------------------------


def setup_of(app: Celery) -> Setup:
    """The settings that matter."""
    conf: Any = app.conf
    known = definitions(app)
    ours = {task.name for task in known}
    others = [
        name
        for name, task in app.tasks.items()
        if name not in ours and not name.startswith("celery.") and not task.acks_late
    ]
    return Setup(
        backend=str(conf.result_backend or ""),
        transport=str(conf.broker_transport or ""),
        on_redis=urlsplit(str(conf.broker_url)).scheme in {"redis", "rediss"},
        has_pulse=Pulse in app.steps["worker"],
        options=conf.broker_transport_options or {},
        multiplier=int(conf.worker_prefetch_multiplier),
        longest_s=max([float(conf.task_time_limit or 0), *map(_limit_s, app.tasks.values())]),
        early_acks=[task.name for task in known if not task.acks_late],
        others=others,
    )


def _limit_s(task: Any) -> float:
    own = None if is_workflow(task) else getattr(task, "timeout_s", None)
    return float(own or task.time_limit or 0)


def needs_of(visit: Visit) -> Needs:
    """What app and runs need of workers.

    Raises:
        OperationalError, RedisError: The broker does not answer.
    """
    app, runs = visit.app, visit.survey
    known = definitions(app)
    # What every app has (`celeriac.submitted`) is in need of a worker only while a run of it waits.
    own = [task for task in known if not task.name.startswith("celeriac.")]
    queue_of = {task.name: task.queue_of({}) for task in own if is_workflow(task) or not task.local}
    turns = {run.workflow: engines.of(app).turn_queue(run.workflow) for run in runs.sample}
    runs_on = waiting_runs(runs, turns)
    return Needs(
        queue_of=queue_of,
        interruptible=frozenset(task.name for task in known if not is_workflow(task) and task.interruptible),
        own=describe(app),
        runs_on=runs_on,
        messages_on=Backlog(app).sizes(sorted({*queue_of.values(), *runs_on})),
        running=Counter(run.workflow for run in runs.sample),
        unfinished=runs.unfinished,
        is_complete=runs.is_complete,
    )


# --- the workers ----------------------------------------------------------------------


def ask_workers(app: Celery, timeout_s: float) -> list[Node]:
    """Ask all workers all questions, in the time of one.

    Raises:
        OperationalError, RedisError: The broker does not answer.
    """
    answers: dict[str, dict[str, Any]] = {}
    clocks: dict[str, float] = {}
    failures: list[Exception] = []

    def ask(question: str) -> None:
        try:
            answers[question] = _ask(app, question, timeout_s, clocks if question == COMMAND else {})
        except (OperationalError, RedisError, OSError) as failure:
            failures.append(failure)

    _side_by_side(ask, QUESTIONS)
    if failures:
        raise failures[0]
    stats, queues, infos = (answers[question] for question in QUESTIONS)
    names = sorted({*stats, *queues, *infos})
    return [_node(name, stats.get(name), queues.get(name), infos.get(name), clocks.get(name, 0.0)) for name in names]


def _side_by_side(work: Callable[[str], None], arguments: Iterable[str]) -> None:
    threads = [threading.Thread(target=work, args=(argument,), daemon=True) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _ask(app: Celery, question: str, timeout_s: float, clocks: dict[str, float]) -> dict[str, Any]:
    began_s = time()

    def hear(reply: Mapping[str, Any]) -> None:
        for name, said in reply.items():
            if isinstance(said, Mapping) and "now_ms" in said:
                clocks[name] = off_s(said["now_ms"] / 1000, began_s, time())

    replies = cast("Any", app.control).broadcast(question, reply=True, timeout=timeout_s, callback=hear)
    merged = {name: said for reply in replies or () for name, said in reply.items()}
    # A worker that does not know a question answers with an error: as if it had not.
    return {name: said for name, said in merged.items() if not (isinstance(said, Mapping) and "error" in said)}


def off_s(theirs_s: float, began_s: float, heard_s: float) -> float:
    """How far a clock that was read between two moments of ours is certainly off; 0 if it may be right."""
    return min(0.0, theirs_s - began_s) + max(0.0, theirs_s - heard_s)


def _node(name: str, stats: Any, queues: Any, said: Any, clock_s: float) -> Node:
    stats = stats or {}
    pool = stats.get("pool") or {}
    # As `celery.concurrency.prefork:TaskPool`.
    kind = str(pool.get("implementation", "")).partition(":")[0].rpartition(".")[2]
    return Node(
        name=name,
        pool={"thread": "threads"}.get(kind, kind),
        slots=int(pool.get("max-concurrency") or 1),
        prefetch=int(stats.get("prefetch_count", 1)),
        queues=frozenset(str(queue["name"]) for queue in queues or ()),
        info=said if said and said.get("installed") else None,
        off_s=clock_s,
    )
