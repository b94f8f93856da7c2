"""What the doctor says of the workers: who serves what, with which code, and by which clock."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from status.cli_show import hint
from status.doctor_words import Finding, error, info, many, ok, some, warning

#: More than this apart, and a message that a worker sends seems to be older, or younger, than it is.
APART_S = 1.0

#: More messages in a worker's hand for each task that it runs wait behind long ones, while other workers idle.
MOST_PREFETCHED = 16

#: Pools whose processes can be killed, one without the others.
KILLABLE = frozenset({"prefork"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A worker, as it answered.

    Attributes:
        pool: `prefork`, `threads`, `solo` ...; '' if it did not say.
        slots: Tasks that it runs at once.
        prefetch: Messages that it takes at most; 0: as many as there are.
        queues: What it listens on.
        info: See `worker_info.describe`; None: it does not know the question.
        off_s: Its clock before ours, as far as it can't be explained by the message's way.
    """

    name: str
    pool: str = ""
    slots: int = 1
    prefetch: int = 4
    queues: frozenset[str] = frozenset()
    info: Mapping[str, Any] | None = None
    off_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What this app, and the runs that are there, need of workers.

    Attributes:
        queue_of: Step or workflow -> the queue of its messages.
        interruptible: Steps that say so.
        own: See `worker_info.describe`: this process.
        runs_on: Queue -> how many of the sampled runs wait on it.
        messages_on: Queue -> how many messages lie on it.
        running: Workflows of runs that have not ended -> how many of those sampled.
        unfinished: How many runs have not ended.
        is_complete: Whether all of them were sampled.
    """

    queue_of: Mapping[str, str] = field(default_factory=dict)
    interruptible: frozenset[str] = frozenset()
    own: Mapping[str, Any] = field(default_factory=dict)
    runs_on: Mapping[str, int] = field(default_factory=dict)
    messages_on: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    unfinished: int = 0
    is_complete: bool = True

    @property
    def at_least(self) -> str:
        """Put before numbers of sampled runs."""
        return "" if self.is_complete else "at least "

    @property
    def queues(self) -> frozenset[str]:
        """All queues that somebody should listen on."""
        return frozenset(self.queue_of.values()) | frozenset(self.runs_on)


def worker_findings(nodes: Sequence[Node], needs: Needs, app_name: str, timeout_s: float) -> list[Finding]:
    """Everything about the workers that answered."""
    return [
        present(nodes, needs, app_name, timeout_s),
        *queues(nodes, needs, app_name),
        *strangers(nodes, needs),
        *versions(nodes, needs),
        *unknown_workflows(nodes, needs),
        *unknown_tasks(nodes, needs),
        *pools(nodes, needs),
        *prefetch(nodes),
        *clocks(nodes),
    ]


def present(nodes: Sequence[Node], needs: Needs, app_name: str, timeout_s: float) -> Finding:
    """Whether there are any."""
    if nodes:
        told = some(f"{node.name} ({node.pool or '?'}, {node.slots})" for node in nodes)
        return ok("workers", f"{many(len(nodes), 'worker')}: {told}")
    seen = f"no worker answered in {timeout_s:g} s (one of the solo pool can't while it works)"
    remedy = f"start one: `celery -A {app_name} worker`, or all of them: `celery -A {app_name} up`"
    if needs.unfinished:
        return error("workers", f"{seen}, and {many(needs.unfinished, 'run')} wait{_s(needs.unfinished)}", remedy)
    return warning("workers", seen, remedy)


def queues(nodes: Sequence[Node], needs: Needs, app_name: str) -> Iterator[Finding]:
    """Queues that steps and workflows are sent to, and that nobody listens on."""
    served = frozenset().union(*(node.queues for node in nodes))
    missing = sorted(needs.queues - served)
    for queue in missing:
        runs, messages = needs.runs_on.get(queue, 0), needs.messages_on.get(queue, 0)
        seen = f"no worker listens on queue {queue!r}: {needs.at_least}{many(runs, 'run')} wait{_s(runs)} on it"
        seen += f", {many(messages, 'message')} lie{_s(messages)} there"
        remedy = hint(queue, app_name).partition(": ")[2]
        if runs or messages:
            yield error("workers.queues", seen, remedy)
        elif nodes:  # with none at all, `present` has said it
            yield warning("workers.queues", f"no worker listens on queue {queue!r}; nothing waits there now", remedy)
    if needs.queues and not missing:
        waiting = sum(needs.messages_on.values())
        yield ok(
            "workers.queues",
            f"each of the {many(len(needs.queues), 'queue')} in use has a worker; {many(waiting, 'message')} "
            f"wait{_s(waiting)}",
        )


def strangers(nodes: Sequence[Node], needs: Needs) -> Iterator[Finding]:
    """Workers that are not ours, and take our messages all the same."""
    for node in nodes:
        shared = node.queues & needs.queues
        if node.info is None and shared:
            yield error(
                "workers.install",
                f"{node.name} takes messages of {some(map(repr, shared))} and is no worker of this celeriac",
                "let its app call canvas.install(app), give it the same version, or other queues",
            )


def versions(nodes: Sequence[Node], needs: Needs) -> Iterator[Finding]:
    """Workers that run another celeriac, or other code, than what is here."""
    own, alike = needs.own, True
    for node in _ours(nodes):
        its: Mapping[str, Any] = node.info or {}
        if its["version"] != own["version"]:
            alike = False
            yield warning(
                "workers.version",
                f"{node.name} runs celeriac {its['version']}, this is {own['version']}",
                "restart it with this version",
            )
        elif its["python"] != own["python"]:
            yield info(
                "workers.code",
                f"{node.name} runs on Python {its['python']}, this is {own['python']}: whether its code is the same "
                "can't be seen",
            )
        elif changed := _changed(its["modules"], own["modules"]):
            alike = False
            yield warning(
                "workers.code",
                f"{node.name} runs other code of {some(changed)} than what is here",
                "restart it with this code; unfinished runs that it does not fit are then parked, and undo nothing",
            )
    if alike and _ours(nodes):
        yield ok("workers.code", f"all run celeriac {own['version']}, and the same code as is here")


def _changed(theirs: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    return [module for module in own if theirs.get(module, own[module]) != own[module]]


def unknown_workflows(nodes: Sequence[Node], needs: Needs) -> Iterator[Finding]:
    """Workflows of which there are runs, and that no worker has the code of."""
    ours = _ours(nodes)
    if not ours:
        return
    known = {name for node in ours for name in (node.info or {})["workflows"]}
    for name in sorted(set(needs.running) - known):
        number = needs.running[name]
        yield error(
            "workers.workflows",
            f"no worker knows the workflow {name!r}, of which {needs.at_least}{many(number, 'run')} "
            f"{'has' if number == 1 else 'have'} not ended",
            "start a worker that has its code, or cancel the runs",
        )


def unknown_tasks(nodes: Sequence[Node], needs: Needs) -> Iterator[Finding]:
    """Workers that listen where messages come that they can't do."""
    for node in _ours(nodes):
        knows = {*(node.info or {})["steps"], *(node.info or {})["workflows"]}
        lacks = [name for name, queue in needs.queue_of.items() if queue in node.queues and name not in knows]
        if lacks:
            yield warning(
                "workers.tasks",
                f"{node.name} gets messages of {some(lacks)} and does not know {'it' if len(lacks) == 1 else 'them'}",
                "give it the code (Celery's `include`, or an import), or other queues",
            )


def pools(nodes: Sequence[Node], needs: Needs) -> Iterator[Finding]:
    """Pools that can't end a step that nobody waits for."""
    for node in _ours(nodes):
        if not node.pool or node.pool in KILLABLE:
            continue
        steps = [name for name in needs.interruptible if needs.queue_of.get(name) in node.queues]
        if steps:
            yield warning(
                "workers.pool",
                f"{node.name} has the {node.pool} pool and can't stop {some(steps)}, which may be interrupted: "
                "they run on when nobody waits for them",
                "run it with `-P prefork`, or let these steps look at current_step().cancelled",
            )


def prefetch(nodes: Sequence[Node]) -> Iterator[Finding]:
    """Workers that take more messages than they can do soon."""
    for node in nodes:
        if node.prefetch and node.prefetch <= MOST_PREFETCHED * node.slots:
            continue
        number = f"{node.prefetch:,}" if node.prefetch else "any number of"
        yield warning(
            "workers.prefetch",
            f"{node.name} takes {number} messages and does {node.slots} at a time: "
            "the rest wait there while others idle",
            "set worker_prefetch_multiplier to 4 (1 where steps are long)",
        )


def clocks(nodes: Sequence[Node]) -> Iterator[Finding]:
    """Workers whose clock is not ours."""
    off = [node for node in _ours(nodes) if abs(node.off_s) > APART_S]
    for node in off:
        yield warning(
            "workers.clock",
            f"the clock of {node.name} is at least {abs(node.off_s):.1f} s {'before' if node.off_s > 0 else 'behind'} "
            "this machine's",
            "let both machines keep time (NTP)",
        )
    if _ours(nodes) and not off:
        yield ok("workers.clock", "the workers' clocks and this machine's agree, as far as can be seen")


def _ours(nodes: Collection[Node]) -> list[Node]:
    return [node for node in nodes if node.info is not None]


def _s(number: int) -> str:
    return "s" if number == 1 else ""
