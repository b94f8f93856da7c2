"""Which workers `celery up` runs: the setting `celeriac_workers`, checked, and their command lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from canvas.supervisor import Program
from status.errors import ConfigError

SETTING = "celeriac_workers"
POOLS = ("prefork", "threads", "solo")
EXAMPLE = '{"default": {"queues": ["celery"], "pool": "prefork", "concurrency": 4}}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Workers that are alike.

    Attributes:
        name: Their node names are `NAME-1@host`, `NAME-2@host` ...
        queues: What they listen on.
        pool: One of `POOLS`.
        concurrency: Tasks at a time in each of them; None leaves it to Celery (one a core).
        prefetch: Messages that each task at a time may have in hand; None leaves it to `worker_prefetch_multiplier`.
        nice: How far they stand back when processors are short: 0, not at all, to 19.
    """

    name: str
    queues: tuple[str, ...]
    pool: str = "prefork"
    concurrency: int | None = None
    prefetch: int | None = None
    nice: int = 0

    def program(self, app_name: str, number: int, *, loglevel: str, grace_s: float) -> Program:
        """The worker `number` of this group."""
        name = f"{self.name}-{number}"
        back = ["nice", "-n", str(self.nice)] if self.nice else []
        node = [*back, sys.executable, "-m", "celery", "-A", app_name, "worker", "-n", f"{name}@%h"]
        where = ["-Q", ",".join(self.queues), "-P", self.pool, "-l", loglevel]
        size = [] if self.concurrency is None else ["-c", str(self.concurrency)]
        hand = [] if self.prefetch is None else ["--prefetch-multiplier", str(self.prefetch)]
        return Program(name=name, argv=[*node, *where, *size, *hand], grace_s=grace_s)


def groups_of(app: Celery) -> list[Group]:
    """The groups of the app's setting `celeriac_workers`; without it, one worker for every queue.

    Raises:
        ConfigError: The setting is wrong, or leaves a queue of the app without a worker.
    """
    setting = app.conf.get(SETTING)
    known = tuple(app.amqp.queues.keys())
    if setting is None:
        return [Group(name="all", queues=known)]
    if not isinstance(setting, Mapping) or not setting:
        raise ConfigError(f"{SETTING} must be a dict such as {EXAMPLE}, not {setting!r}")
    groups = [_group(name, options) for name, options in setting.items()]
    if app.conf.task_queues:  # without them Celery makes a queue for whatever name it meets
        _check_queues(groups, known)
    return groups


def choose(groups: Sequence[Group], only: Sequence[str], scale: Mapping[str, int]) -> list[tuple[Group, int]]:
    """Which groups to run, each with its number of processes.

    Raises:
        ConfigError: There is no group of such a name.
    """
    names = [group.name for group in groups]
    for option, wanted in (("--only", only), ("--scale", tuple(scale))):
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ConfigError(f"{option} {unknown[0]}: there is no such group; there are {', '.join(names)}")
    idle = [name for name in scale if only and name not in only]
    if idle:
        raise ConfigError(f"--scale {idle[0]}: --only leaves this group out")
    return [(group, scale.get(group.name, 1)) for group in groups if not only or group.name in only]


def _group(name: Any, options: Any) -> Group:  # whatever is in the settings
    where = f"{SETTING}[{name!r}]"
    # The name goes into node names, where these signs have a meaning, and into lists on the command line.
    if not isinstance(name, str) or not name or set(name) & set("@%=, "):
        raise ConfigError(f"{where}: a group's name is text without any of '@', '%', '=', ',' and spaces")
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where} must be a dict such as {EXAMPLE}, not {options!r}")
    unknown = set(options) - {"queues", "pool", "concurrency", "prefetch", "nice"}
    if unknown:
        raise ConfigError(
            f"{where} has {min(map(str, unknown))!r}; known are queues, pool, concurrency, prefetch, nice"
        )
    return Group(
        name=name,
        queues=_queues(where, options.get("queues")),
        pool=_pool(where, options.get("pool", "prefork")),
        concurrency=_number(where, "concurrency", options.get("concurrency")),
        # 0 would be: as many as there are. Then one worker holds the backlog and others stand idle.
        prefetch=_number(where, "prefetch", options.get("prefetch")),
        nice=_nice(where, options.get("nice", 0)),
    )


def _queues(where: str, value: Any) -> tuple[str, ...]:
    # A text is a sequence of texts too: "orders" would be six queues.
    good = isinstance(value, Sequence) and not isinstance(value, str) and value
    if not good or not all(isinstance(queue, str) and queue for queue in value):
        raise ConfigError(f"{where}: queues must be a list of queue names, not {value!r}")
    return tuple(value)


def _pool(where: str, value: Any) -> str:
    if value not in POOLS:
        raise ConfigError(f"{where}: pool must be one of {', '.join(POOLS)}, not {value!r}")
    return str(value)


def _number(where: str, name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{where}: {name} must be a whole number of at least 1, not {value!r}")
    return value


def _nice(where: str, value: Any) -> int:
    # Below 0 is for the superuser, and would put workers before the server that they wait for.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 19:
        raise ConfigError(f"{where}: nice must be a whole number from 0 to 19, not {value!r}")
    return value


def _check_queues(groups: Sequence[Group], known: Sequence[str]) -> None:
    served = {queue for group in groups for queue in group.queues}
    forgotten = [queue for queue in known if queue not in served]
    if forgotten:
        raise ConfigError(
            f"nobody would work on the queue {', '.join(map(repr, forgotten))}: "
            f"add it to the queues of a group in {SETTING}"
        )
    strange = [(group.name, queue) for group in groups for queue in group.queues if queue not in known]
    if strange:
        name, queue = strange[0]
        raise ConfigError(f"{SETTING}[{name!r}]: task_queues has no queue {queue!r}; it has {', '.join(known)}")
