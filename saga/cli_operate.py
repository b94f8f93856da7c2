"""`runs saga retry|skip|abort`: what an operator decides of a rollback that stopped, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from saga import operate
from saga.cli_resume import wait_for
from saga.resume import Resumed, status_of
from status.cli_text import dumps


def carry_out(
    verb: str, run_id: str, entries: Sequence[str] = (), *, by: str | None, reason: str, wait: bool, as_json: bool
) -> int:
    """Give the instruction, and say what becomes of it. Returns the exit code."""
    match verb:
        case "skip":
            given = operate.skip(run_id, *entries, by=by, reason=reason)
        case "abort":
            given = operate.abort(run_id, by=by, reason=reason)
        case _:
            given = operate.retry(run_id, by=by, reason=reason)
    error = wait_for(given) if wait else ""
    status = status_of(run_id)
    state = status.state.value if status else None
    if as_json:
        row = {"run_id": run_id, "verb": verb, "by": given.handle.run_id, "entries": given.entries}
        click.echo(dumps(row | ({"error": error or None, "run_state": state} if wait else {})))
    elif wait:
        click.echo(f"{run_id}: {error or _ended(verb, state)}")
    else:
        click.echo(_begun(verb, run_id, entries, given))
    return 1 if error else 0


def _begun(verb: str, run_id: str, entries: Sequence[str], given: Resumed) -> str:
    by = f"by run {given.handle.run_id}"
    if verb == "abort":
        return f"{run_id}: {given.entries} owed, nothing more is undone; that is noted {by}"
    if verb == "skip":
        left = given.entries - len(entries)
        rest = f"{left} owed, {'is' if left == 1 else 'are'} being undone {by}" if left else f"that is noted {by}"
        return f"{run_id}: without {', '.join(entries)}; {rest}"
    return f"{run_id}: {given.entries} owed, is being undone {by}"


def _ended(verb: str, state: str | None) -> str:
    done = "nothing more is undone" if verb == "abort" else "nothing is owed any more"
    return f"{done}; it is {state}" if state else done
