"""Stock Celery canvas, awaited: `await run.apply(chain(...))`.

What is awaited is published with a task of ours at its end and an errback of ours at each of its tasks; either reports
back as the outcome of the part. No worker waits. All between the first message and the report is Celery's, and is as
durable as that: a message that is lost on the way is never missed, and the await goes on waiting.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import NAMESPACE_URL, uuid5

from celery import current_app, shared_task
from celery.canvas import Signature, chunks, maybe_signature
from celery.exceptions import ChordError, Reject
from kombu.exceptions import OperationalError
from kombu.utils import json as kombu_json
from redis.exceptions import RedisError

from canvas import children
from canvas import engine as engines
from canvas.outcomes import describe, encode_error, encode_unknown, unknown_outcome
from canvas.payload import compact, max_value_bytes
from canvas.publisher import FIRST
from canvas.waitables import Part
from status.errors import ConfigError, ErrorInfo, PayloadError
from status.records import NewPart, PartRef

if TYPE_CHECKING:
    from celery import Celery

    from canvas.engine import Engine

R_co = TypeVar("R_co", covariant=True)

logger = logging.getLogger("celeriac")

DONE, FAILED = "celeriac.canvas_done", "celeriac.canvas_failed"

#: Where a step has its queue and a child its run id: Celery alone knows who runs it. Then the number of its tasks.
WHERE = ">*"

#: A canvas is called by the names of its tasks; of a big one this much.
LABEL_LIMIT = 120

#: A chord says that a task of it has failed before that task says so itself, and knows less of it.
CHORD_ERROR_WAITS_S = 1.0


class Applied(Part[R_co]):
    """A stock signature, chain, group or chord. Made by `run.apply(signature)`."""

    kind = "apply"

    def __init__(self, signature: Signature[R_co]) -> None:
        if not isinstance(signature, Signature):
            raise ConfigError(
                f"run.apply({signature!r:.80}): it takes a Celery signature, chain, group or chord: task.s(...)"
            )
        self._signature = signature.group() if isinstance(signature, chunks) else signature
        self._text = _as_text(self._signature)
        self._name = _name_of(kombu_json.loads(self._text))

    def __repr__(self) -> str:
        return f"run.apply({self._name})"

    @property
    def label(self) -> str:
        return self._name

    @property
    def task_name(self) -> str:
        return self._name

    def prepare(self) -> NewPart:
        return NewPart(kind="canvas", queue=WHERE, label=self.label, spec=compact(self.spec("")))

    def spec(self, _queue: str) -> dict[str, Any]:
        """All that a worker needs to publish it."""
        return {"canvas": self._text, "label": self.label}

    def value(self, outcome: str) -> R_co:
        return cast("R_co", _typed(kombu_json.loads(self._text), json.loads(outcome)))


def _as_text(signature: Signature[Any]) -> str:
    try:
        text = str(kombu_json.dumps(signature))
    except (TypeError, ValueError) as error:
        raise PayloadError(f"run.apply: its arguments can't be carried as JSON ({error})") from error
    if len(text) > max_value_bytes():
        raise PayloadError(
            f"run.apply: {len(text):,} bytes as JSON are more than CELERIAC_MAX_VALUE_BYTES ({max_value_bytes():,}): "
            "pass keys of a store of your own, or raise the limit"
        )
    return text


# --- what a canvas is made of, as plain dicts ---------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """`kind` is '' for a task; `members` run before `body`, one after the other in a chain."""

    kind: str
    members: list[dict[str, Any]]
    body: dict[str, Any] | None = None


def _shape(signature: dict[str, Any]) -> _Shape:
    kwargs = signature.get("kwargs") or {}
    match signature["task"]:
        case "celery.chain":
            return _Shape("chain", list(kwargs["tasks"]))
        case "celery.group":
            return _Shape("group", list(kwargs["tasks"]))
        case "celery.chord":
            header = kwargs["header"]
            members = _shape(header).members if isinstance(header, dict) else list(header)
            return _Shape("chord", members, kwargs["body"])
        case _:
            return _Shape("", [])


def _tasks(signature: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each task of a canvas, always in the same order."""
    shape = _shape(signature)
    if not shape.kind:
        yield signature
    for member in [*shape.members, *([shape.body] if shape.body else [])]:
        yield from _tasks(member)


def _name_of(signature: dict[str, Any]) -> str:
    shape = _shape(signature)
    if not shape.kind:
        return str(signature["task"])
    names = []
    for name, same in groupby(map(_name_of, shape.members)):
        number = len(list(same))
        names.append(name if number == 1 else f"{name}*{number}")
    if shape.body:
        names.append(f"then {_name_of(shape.body)}")
    name = f"{shape.kind}({', '.join(names)})"
    return name if len(name) <= LABEL_LIMIT else name[: LABEL_LIMIT - 1] + "…"


def _typed(signature: dict[str, Any], value: Any) -> Any:
    """What a canvas gave: of our own steps by their annotations, of other tasks as JSON has it."""
    shape = _shape(signature)
    if shape.kind == "chain" and shape.members:
        return _typed(shape.members[-1], value)
    if shape.kind == "chord" and shape.body:
        return _typed(shape.body, value)
    if shape.kind == "group":
        fits = isinstance(value, list) and len(value) == len(shape.members)
        return [_typed(*pair) for pair in zip(shape.members, value, strict=True)] if fits else value
    task = current_app.tasks.get(signature["task"])
    codec = getattr(task, "codec", None)
    return codec.result.python(value) if codec is not None else value


# --- publishing ---------------------------------------------------------------------------


def publish(engine: Engine, ref: PartRef, spec: dict[str, Any], workflow: str) -> None:
    """Send a canvas that is on record; safe to do again, until it is known to have been sent."""
    plain = kombu_json.loads(spec["canvas"])
    number = sum(1 for _ in _tasks(plain))
    grant = engine.store.begin(ref, token=ref.message_id, where=f"{WHERE}{number}", name=spec["label"])
    if not grant.granted:
        return
    part = {"part": ref.message_id, "began_ms": grant.now_ms, "label": spec["label"]}
    try:
        _reporting(engine.app, plain, part, engine.turn_queue(workflow)).apply_async()
    except (OperationalError, RedisError, OSError):
        raise  # not sent, and still due
    except Exception as error:  # noqa: BLE001  # what Celery refuses will not get better
        _report(engine, part, "failed", encode_error(describe(error)))
        return
    engine.store.canvas_sent(ref)


def _reporting(app: Celery, plain: dict[str, Any], part: dict[str, Any], queue: str) -> Signature[Any]:
    """A canvas whose end, and each task's failure, is reported."""
    options: dict[str, Any] = {"queue": queue, "priority": FIRST}
    ids = task_ids(part["part"], sum(1 for _ in _tasks(plain)))
    errback = _plain(app.tasks[FAILED].s(**part, queue=queue).set(**options))
    for task, task_id in zip(_tasks(plain), ids, strict=True):
        task["options"]["task_id"] = task_id
        errbacks = task["options"].get("link_error") or []
        task["options"]["link_error"] = [*(errbacks if isinstance(errbacks, list) else [errbacks]), errback]
    done = app.tasks[DONE].s(**part).set(**options)
    return cast("Any", maybe_signature(plain, app=app)) | done  # type: ignore[no-any-return]


def _plain(signature: Signature[Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", kombu_json.loads(kombu_json.dumps(signature)))


def task_ids(part: str, number: int) -> list[str]:
    """The ids of the tasks of a canvas: the same each time that it is sent."""
    return [str(uuid5(NAMESPACE_URL, f"celeriac:{part}/{at}")) for at in range(number)]


def stop(engine: Engine, ref: PartRef, number: int) -> None:
    """Nobody waits for a canvas any more: what has not begun is revoked; what has, runs on and is not waited for."""
    try:
        engine.app.control.revoke(task_ids(ref.message_id, number))
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("%s: %d task(s) of it were not revoked, they run in vain: %s", ref.step_id, number, error)
    why = unknown_outcome("it was stopped: what had begun of its stock canvas runs on, what had not was revoked")
    children.end_part(engine, ref, "failed", encode_unknown(why))
    engine.store.child_stopped(ref)


# --- reporting ----------------------------------------------------------------------------


@shared_task(name=DONE, ignore_result=True, acks_late=True)
def canvas_done(value: Any, **part: Any) -> None:
    """The end of a canvas that a workflow awaits."""
    try:
        text = _sized(part["label"], compact(value))
    except Exception as error:  # noqa: BLE001  # e.g. of a task with another serializer
        _report(engines.of(current_app), part, "failed", encode_error(describe(error)))
    else:
        _report(engines.of(current_app), part, "done", "v" + text)


def _sized(label: str, text: str) -> str:
    if len(text) > max_value_bytes():
        raise PayloadError(
            f"the result of {label}: {len(text):,} bytes as JSON are more than CELERIAC_MAX_VALUE_BYTES "
            f"({max_value_bytes():,}): keep it in a store of your own and return its key, or raise the limit"
        )
    return text


@shared_task(name=FAILED, ignore_result=True, acks_late=True)
def canvas_failed(failed: Any, error: Any = None, traceback: Any = None, *, queue: str, **part: Any) -> None:
    """A task of a canvas that a workflow awaits has failed.

    Called by Celery in the process where that happened, with request, error and traceback; or, where that process does
    not know this task, sent as a message with the id of the task that failed.
    """
    if isinstance(error, ChordError):
        # The task that made it fail says in a moment why, and that should be what is recorded.
        info = encode_error(describe(error))
        late: Any = canvas_failed
        options = {"queue": queue, "priority": FIRST, "countdown": CHORD_ERROR_WAITS_S}
        late.apply_async((info,), {**part, "queue": queue}, **options)
        return
    if isinstance(failed, str) and failed.startswith("e{"):
        outcome = failed
    elif error is None:
        outcome = encode_error(_kept(str(failed)))
    else:
        info_of = describe(error)
        outcome = encode_error(replace(info_of, traceback=str(traceback or info_of.traceback)))
    _report(engines.of(current_app), part, "failed", outcome)


def _kept(task_id: str) -> ErrorInfo:
    """The error of a task, as the result backend has it."""
    meta = current_app.backend.get_task_meta(task_id)
    if isinstance(meta.get("result"), BaseException):
        return replace(describe(meta["result"]), traceback=str(meta.get("traceback") or ""))
    why = f"task {task_id} of it failed on a worker without celeriac, and its error was not kept"
    return ErrorInfo(None, "TaskFailed", why, 500)


def _report(engine: Engine, part: dict[str, Any], kind: children.Kind, outcome: str) -> None:
    ref = PartRef.parse(part["part"])
    if ref is None:
        raise ConfigError(f"{part['part']!r} is no part of a run")

    def end() -> bool:
        children.end_part(engine, ref, kind, outcome, part["began_ms"])
        return True

    if engine.patiently(end) is None:
        raise Reject(f"{ref.step_id}: Redis does not answer, the report goes back", requeue=True)
