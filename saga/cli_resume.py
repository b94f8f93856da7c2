"""`runs saga resume`: which runs, whether they are meant, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from saga.owed import UNKNOWN, sagas
from saga.resume import NothingOwed, Resumed, resume
from status.cli_plain import Refused
from status.cli_text import dumps
from status.errors import ConfigError, RunFailed
from status.states import FINAL

#: So many runs are looked at by one --all-open; what is left is for the next.
MOST = 10_000


def resume_all(
    run_ids: Sequence[str], *, all_open: bool, yes: bool, by: str | None, reason: str, wait: bool, as_json: bool
) -> int:
    """Resume these runs, or all that owe something and do not go on. Returns the exit code."""
    if bool(run_ids) == all_open:
        raise Refused("say which: `runs saga resume RUN`, or --all-open for all that owe an undo")
    chosen = list(run_ids) if run_ids else _all_open()
    if all_open and chosen and not yes:
        click.confirm(f"undo what {len(chosen)} run(s) owe: {_some(chosen)}?", abort=True)
    lines = [_resume(run_id, by, reason, tolerant=all_open) for run_id in chosen]
    started = [(run_id, resumed) for run_id, resumed in zip(chosen, lines, strict=True) if resumed]
    ended = {run_id: wait_for(resumed) for run_id, resumed in started} if wait else {}
    _tell(chosen, started, ended, as_json=as_json)
    return 1 if any(ended.values()) else 0


def _all_open() -> list[str]:
    found = sagas(only_open=True, limit=MOST)
    if any(one.run_state == UNKNOWN for one in found):
        raise Refused("Redis went away: whether the runs are going on is not known; try again when it is there")
    return list(dict.fromkeys(one.run_id for one in found if one.run_state is None or one.run_state in FINAL))


def _resume(run_id: str, by: str | None, reason: str, *, tolerant: bool) -> Resumed | None:
    try:
        return resume(run_id, by=by, reason=reason)
    except NothingOwed:
        if not tolerant:
            raise
    except ConfigError:
        # It was submitted again a moment ago.
        if not tolerant:
            raise
    return None


def wait_for(resumed: Resumed) -> str:
    """Wait for the undos. Gives why one gave up, '' if none did."""
    try:
        resumed.handle.result()
    except RunFailed as error:
        return str(error)
    return ""


def _tell(
    chosen: Sequence[str], started: Sequence[tuple[str, Resumed]], ended: dict[str, str], *, as_json: bool
) -> None:
    if as_json:
        rows = [
            {"run_id": run_id, "by": resumed.handle.run_id, "entries": resumed.entries, "started": resumed.started}
            | ({"error": ended[run_id] or None} if run_id in ended else {})
            for run_id, resumed in started
        ]
        click.echo(dumps({"resumed": rows}))
        return
    if not chosen:
        click.echo("no run owes anything")
    for run_id, resumed in started:
        verb = "is being undone" if resumed.started else "is being undone already"
        line = f"{run_id}: {resumed.entries} owed, {verb} by run {resumed.handle.run_id}"
        if run_id in ended:
            line = f"{run_id}: {ended[run_id] or 'undone'}"
        click.echo(line)


def _some(run_ids: Sequence[str]) -> str:
    return ", ".join(run_ids[:5]) + (", …" if len(run_ids) > 5 else "")
