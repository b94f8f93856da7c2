"""What `celery runs doctor` is made of: findings, and the looks that give them.

A look is a function that takes a `Visit` and gives findings. Those of Redis and the runs are here in `status`;
`canvas` and `saga` add theirs by name, so that nothing of a look is imported before it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from time import monotonic
from typing import Any, cast

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from status import here
from status.doctor_redis import Server, ask_server, redis_findings
from status.doctor_words import Finding, Severity
from status.errors import OrchestrationError
from status.keys import Keys
from status.settings import Settings
from status.survey import Survey, survey

#: Looks that all apps get.
OWN = ("status.doctor_store:look",)

#: Beside the time that workers have to answer: to connect, to import, and to read what they said.
SLACK_S = 3.0

_added: dict[str, str] = {}


class Look(StrEnum):
    """The looks that other folders add."""

    WORKERS = "workers"
    SAGA = "saga"


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """What each look is given.

    Attributes:
        app_name: As in `celery -A APP`, for remedies.
        redis: Answers within a few seconds, or raises.
        timeout_s: Workers have this long to answer.
        survey: The runs, as they were a moment ago.
    """

    app: Celery
    app_name: str
    redis: Redis
    keys: Keys
    timeout_s: float
    survey: Survey


def add(name: Look, path: str) -> None:
    """Have one more look taken: the function at `module:function`. Imports nothing yet."""
    _added[name] = path


def examine(app: Celery, app_name: str, *, timeout_s: float) -> list[Finding]:
    """Look at everything, the worst finding first. Changes nothing.

    If Redis does not answer that is the one finding: nothing else can be judged then.

    Args:
        timeout_s: Workers have this long to answer; it takes a few seconds more at most.
    """
    try:
        # Fewer retries than a worker has: a person waits.
        redis = here.connect(here.address(), timeout_s=max(timeout_s, here.PROMPT_TIMEOUT_S), retries=0)
        server = ask_server(redis, here.where())
    except OrchestrationError as error:
        return [Finding("redis", Severity.ERROR, str(error), "correct the setting")]
    except (RedisError, OSError) as error:
        return [_unreachable(error)]
    with redis:
        return sorted(_examine(app, app_name, redis, server, timeout_s), key=lambda found: -found.severity.rank)


def _examine(app: Celery, app_name: str, redis: Redis, server: Server, timeout_s: float) -> list[Finding]:
    try:
        shards = Settings.from_environment().shards
    except OrchestrationError as error:
        return [Finding("settings", Severity.ERROR, str(error), "correct the setting")]
    found = redis_findings(server, shards)
    # By what is stored, whatever the setting says: so the rest of the findings still is about these runs.
    keys = Keys(server.shards or shards)
    try:
        runs = survey(redis, keys)
    except RedisError as error:
        return [*found, _unreachable(error)]
    visit = Visit(app=app, app_name=app_name, redis=redis, keys=keys, timeout_s=timeout_s, survey=runs)
    looks = [*OWN, *_added.values()]
    if Look.WORKERS not in _added:
        found.append(
            Finding(
                "app.install",
                Severity.ERROR,
                "this app was never given to canvas.install(): it runs no workflows",
                "call canvas.install(app) where the app is made",
            )
        )
    return found + take(looks, visit, limit_s=timeout_s + SLACK_S)


def take(looks: Sequence[str], visit: Visit, *, limit_s: float) -> list[Finding]:
    """Take looks side by side. One that fails, or does not come back in time, is a finding itself."""
    results: dict[str, list[Finding]] = {}

    def one(path: str) -> None:
        try:
            results[path] = list(_function(path)(visit))
        except Exception as error:
            results[path] = [_failed(path, f"{type(error).__name__}: {error}")]
            if not isinstance(error, OrchestrationError | RedisError | OperationalError | OSError):
                raise  # a bug: with its traceback on stderr

    # Daemons: one that hangs in a connection must not keep the command from its end.
    threads = [threading.Thread(target=one, args=(path,), name=path, daemon=True) for path in looks]
    end_s = monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end_s - monotonic()))
    late = f"no answer in {limit_s:.0f} s"
    return [finding for path in looks for finding in results.get(path, [_failed(path, late)])]


def _function(path: str) -> Callable[[Visit], Iterable[Finding]]:
    module, _, name = path.partition(":")
    return cast("Callable[[Visit], Iterable[Finding]]", getattr(import_module(module), name))


def _failed(path: str, why: str) -> Finding:
    return Finding(
        "doctor",
        Severity.ERROR,
        f"could not take the look {path}: {' '.join(why.split())}",
        "see that broker and database answer, or give more time (--timeout)",
    )


def _unreachable(error: Any) -> Finding:
    return Finding(
        "redis",
        Severity.ERROR,
        f"Redis at {here.where()} does not answer ({' '.join(str(error).split())})",
        "start it, or set REDIS_URL to one that runs",
    )
