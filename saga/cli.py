"""`celery -A APP runs saga ...`: what is owed, from the log in SQL alone, and ways to have it undone, or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from celery.bin.base import CeleryCommand

from status.cli_complete import run_ids
from status.cli_plain import PlainCommand, Refused, plainly

AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
WAIT = click.option("--wait", is_flag=True, help="Wait for the undos; exit code 1 if one gave up.")

Command = TypeVar("Command", bound=Callable[..., Any])


def signed(*, required: bool) -> Callable[[Command], Command]:
    """Options that say who wants it, and why."""
    why: dict[str, Any] = {"required": True} if required else {"default": ""}

    def decorate(command: Command) -> Command:
        command = click.option("--reason", metavar="TEXT", help="Kept in the run's history and in the log.", **why)(
            command
        )
        return click.option("--by", metavar="NAME", help="Who wants it; if not given, the user of this process.")(
            command
        )

    return decorate


class LogCommand(CeleryCommand):
    """A command that needs the database, and not Redis."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, plainly."""
        with plainly():
            return super().invoke(ctx)


@click.group(name="saga")
def saga() -> None:
    """What sagas owe, from the log in SQL, which outlives Redis: look at it, have it undone, or settle it by hand.

    \b
    celery -A tasks runs saga list --open
    celery -A tasks runs saga show order-7
    celery -A tasks runs saga retry order-7
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
@click.argument("run_id", metavar="RUN", shell_complete=run_ids)
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
@click.argument("run_ids", metavar="[RUN]...", nargs=-1, shell_complete=run_ids)
@click.option("--all-open", is_flag=True, help="All runs that owe an undo and are not going on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@signed(required=False)
@WAIT
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


@saga.command(cls=PlainCommand)
@click.argument("run_id", metavar="RUN")
@signed(required=False)
@WAIT
@AS_JSON
@click.pass_context
def retry(ctx: click.Context, /, run_id: str, **options: Any) -> None:
    """Try the undo of RUN that gave up again, with all its attempts, and go on with the rest of the rollback.

    If all of it succeeds, RUN is what it would have been: compensated, cancelled or timed_out.

    \b
    celery -A tasks runs saga retry order-7
    celery -A tasks runs saga retry order-7 --wait --reason "the bank is back"
    """
    from saga.cli_operate import carry_out  # noqa: PLC0415

    ctx.exit(carry_out("retry", run_id, **options))


@saga.command(cls=PlainCommand)
@click.argument("run_id", metavar="RUN")
@click.argument("entries", metavar="ENTRY...", nargs=-1, required=True)
@signed(required=True)
@WAIT
@AS_JSON
@click.pass_context
def skip(ctx: click.Context, /, run_id: str, entries: tuple[str, ...], **options: Any) -> None:
    """Note that these entries of RUN were undone by hand, or need not be; then undo the rest, as retry does.

    ENTRY is its name, or its number in `saga show`. What else gave up is tried again: name all that are to be left out.

    \b
    celery -A tasks runs saga skip order-7 charge --reason "refunded by hand, receipt 4711"
    """
    from saga.cli_operate import carry_out  # noqa: PLC0415

    ctx.exit(carry_out("skip", run_id, entries, **options))


@saga.command(cls=PlainCommand)
@click.argument("run_id", metavar="RUN")
@signed(required=True)
@WAIT
@AS_JSON
@click.pass_context
def abort(ctx: click.Context, /, run_id: str, **options: Any) -> None:
    """End the rollback of RUN for good: nothing more is undone. What was owed stays on record as aborted.

    RUN stays compensation_failed.

    \b
    celery -A tasks runs saga abort order-7 --reason "the customer keeps the goods"
    """
    from saga.cli_operate import carry_out  # noqa: PLC0415

    ctx.exit(carry_out("abort", run_id, **options))
