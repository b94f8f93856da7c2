"""`celery -A APP runs saga ...`: what is owed, from the log in SQL alone, and a way to have it undone."""

from __future__ import annotations

from typing import Any

import click
from celery.bin.base import CeleryCommand

from status.cli_plain import PlainCommand, Refused, plainly

AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


class LogCommand(CeleryCommand):
    """A command that needs the database, and not Redis."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, plainly."""
        with plainly():
            return super().invoke(ctx)


@click.group(name="saga")
def saga() -> None:
    """List, show and resume what sagas owe: from the log in SQL, which outlives Redis.

    \b
    celery -A tasks runs saga list --open
    celery -A tasks runs saga show order-7
    celery -A tasks runs saga resume order-7
    """


@saga.command(name="list", cls=LogCommand)
@click.option("--open", "only_open", is_flag=True, help="Only sagas that have something left to undo.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="So many at most.")
@AS_JSON
def list_(*, only_open: bool, limit: int, as_json: bool) -> None:
    """List sagas; with --open those that owe an undo, the oldest first.

    "Not in Redis" says that nobody will undo it unless you `resume` it. A run that goes on has open entries
    too: they are closed when its saga ends.

    \b
    celery -A tasks runs saga list --open
    celery -A tasks runs saga list --open --json | jq -r '.sagas[] | select(.run_state == null) | .run_id'
    """
    from saga import cli_text  # noqa: PLC0415
    from saga.owed import sagas  # noqa: PLC0415

    found = sagas(only_open=only_open, limit=limit)
    click.echo(cli_text.list_json(found) if as_json else cli_text.list_page(found, only_open=only_open))


@saga.command(cls=LogCommand)
@click.argument("run_id", metavar="RUN")
@AS_JSON
def show(*, run_id: str, as_json: bool) -> None:
    """Show each entry of a run's sagas: what it undoes, and how far it is.

    \b
    celery -A tasks runs saga show order-7
    """
    from saga import cli_text  # noqa: PLC0415
    from saga.owed import entries_of, run_state  # noqa: PLC0415

    entries = entries_of(run_id)
    if not entries:
        raise Refused(f"the saga log has nothing of run {run_id}: check the id with `runs saga list`")
    state = run_state(run_id)
    click.echo(cli_text.show_json(entries, state) if as_json else cli_text.show_page(entries, state))


@saga.command(cls=PlainCommand)
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option("--all-open", is_flag=True, help="All runs that owe an undo and are not going on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Wait for the undos; exit code 1 if one gave up.")
@AS_JSON
@click.pass_context
def resume(ctx: click.Context, /, run_ids: tuple[str, ...], **options: Any) -> None:
    """Undo what RUN owes: newest first, one at a time, by a run of its own (RUN:resume).

    For runs that Redis has lost, and for runs that ended with undos left. Doing it twice undoes nothing
    twice. A run that goes on is refused: it undoes what it owes itself. A worker must serve the default queue.

    \b
    celery -A tasks runs saga resume order-7
    celery -A tasks runs saga resume --all-open --yes --wait
    """
    from saga.cli_resume import resume_all  # noqa: PLC0415

    ctx.exit(resume_all(run_ids, **options))
