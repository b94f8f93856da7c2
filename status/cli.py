"""`celery -A APP runs ...`: submit, list, show, watch and cancel runs; and see what is wrong.

Imported at every start of `celery`, workers too; so what draws is imported where it is used.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import click
from celery.bin.base import CeleryCommand, handle_preload_options

from status import api, cli_complete, flower_hook, here
from status.cli_more import OpenGroup
from status.cli_plain import PlainCommand, Refused
from status.states import State

flower_hook.hook(sys.argv)

AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


@click.group(name="runs", cls=OpenGroup)
@click.pass_context
@handle_preload_options
def runs(_ctx: click.Context, **_preload: Any) -> None:
    """Submit, list, show, watch and cancel runs of workflows; see what is wrong.

    \b
    celery -A tasks runs submit orders.complete orders.jsonl --run-id-field order_id
    celery -A tasks runs list --state failed
    celery -A tasks runs show order-7
    celery -A tasks runs watch
    celery -A tasks runs doctor
    """


@runs.command(cls=PlainCommand)
@click.argument("workflow", shell_complete=cli_complete.workflows)
@click.argument("file", type=click.File("rb"), metavar="FILE.jsonl|-")
@click.option("--run-id-field", metavar="NAME", help="The field of each line that its run id is made of.")
@click.option("--run-id-prefix", metavar="TEXT", default="", help="What to put before it.")
@click.option("--wait", is_flag=True, help="Wait for all; exit code 1 if one does not complete.")
@AS_JSON
@click.pass_context
def submit(ctx: click.Context, /, workflow: str, file: BinaryIO, **options: Any) -> None:
    """Start a run of WORKFLOW for each line of a file (`-`: standard input).

    A line is one JSON value, the workflow's single argument; or, for any other call, an object of
    nothing but "run_id", "args" and "kwargs", with at least one of the last two.

    All lines are checked before the first is submitted. With run ids of your own (--run-id-field, or
    "run_id") the same file can be submitted again: a run that exists is not started twice.

    \b
    celery -A tasks runs submit orders.complete orders.jsonl \\
        --run-id-field order_id --run-id-prefix order- --wait
    echo '{"run_id": "trip-1", "args": ["Rome", 2]}' | celery -A tasks runs submit trips.book -
    """
    from status.cli_submit import submit_file  # noqa: PLC0415

    ctx.exit(submit_file(ctx.obj.app, workflow, file, **options))


@runs.command(name="list", cls=PlainCommand)
@click.option("--workflow", metavar="NAME", shell_complete=cli_complete.workflows, help="Only of this workflow.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only runs in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many runs at most.")
@click.option("--cursor", metavar="TEXT", help="Go on where an earlier listing ended.")
@AS_JSON
def list_(*, workflow: str | None, state: str | None, limit: int, cursor: str | None, as_json: bool) -> None:
    """List runs, newest first.

    \b
    celery -A tasks runs list --workflow orders.complete --state running
    celery -A tasks runs list --json | jq -r '.runs[].run_id'
    """
    from rich.console import Console  # noqa: PLC0415

    from status import cli_show, cli_text  # noqa: PLC0415

    page = api.list_runs(workflow=workflow, state=state, limit=limit, cursor=cursor)
    if as_json:
        found = [cli_text.run_json(run, steps=False) for run in page.runs]
        click.echo(cli_text.dumps({"runs": found, "cursor": page.cursor}))
    else:
        cli_show.print_page(Console(), page)


@runs.command(cls=PlainCommand)
@click.argument("run_id", metavar="ID", shell_complete=cli_complete.run_ids)
@click.option("--timeline/--no-timeline", default=None, help="Each step on the run's time; on a terminal it is shown.")
@AS_JSON
@click.pass_context
def show(ctx: click.Context, run_id: str, *, timeline: bool | None, as_json: bool) -> None:
    """Show all about a run: its phases, steps, undos and error, and what it waits for.

    \b
    celery -A tasks runs show order-7
    celery -A tasks runs show order-7 --json | jq .error
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from status import cli_show, cli_text  # noqa: PLC0415

    run, events = api.get_status(_checked(run_id)), api.history(run_id)
    unserved = cli_show.unserved(ctx.obj.app, run)
    awaited, channels = cli_show.awaited_promises(run), cli_show.awaited_channels(run)
    hints = [cli_show.hint(queue, _app_name(ctx)) for queue in unserved]
    hints += [cli_show.promise_hint(run_id, name, _app_name(ctx)) for name in awaited]
    hints += [cli_show.channel_hint(run_id, name, _app_name(ctx)) for name in channels]
    if as_json:
        shown = cli_text.run_json(run, steps=True) | {
            "history": [cli_text.event_json(event) for event in events],
            "hints": hints,
            "promises": awaited,
            "channels": channels,
        }
        click.echo(cli_text.dumps(shown))
        return
    console = Console()
    bars = console.is_terminal if timeline is None else timeline
    console.print(cli_show.run_page(run, events, datetime.now(UTC), width=console.width if bars else 0))
    for told in hints:
        console.print(f"\n{told}", style="bold yellow", markup=False, highlight=False, soft_wrap=True)


@runs.command(cls=PlainCommand)
@click.argument("run_id", metavar="[ID]", required=False, shell_complete=cli_complete.run_ids)
@AS_JSON
@click.pass_context
def watch(ctx: click.Context, run_id: str | None, *, as_json: bool) -> None:
    """Watch a run's events until it ends; without ID, all runs that are not finished, until Ctrl-C.

    All runs are shown as a live board; into a pipe, or with --json, an event a line.

    \b
    celery -A tasks runs watch order-7
    celery -A tasks runs watch
    celery -A tasks runs watch --json | jq -r 'select(.kind == "run.failed") | .run_id'
    """
    from rich.console import Console  # noqa: PLC0415

    from status import cli_watch  # noqa: PLC0415

    if run_id is not None:
        cli_watch.watch_one(Console(), api.watch(_checked(run_id)), as_json=as_json)
        return
    try:
        cli_watch.watch_all(Console(), here.reader(), as_json=as_json)
    except KeyboardInterrupt:
        ctx.exit(0)


@runs.command(cls=PlainCommand)
@AS_JSON
@click.pass_context
def metrics(ctx: click.Context, *, as_json: bool) -> None:
    """Print figures of all runs, steps, queues and timers as Prometheus reads them.

    The same are on Flower's /metrics, beside Flower's own.

    \b
    celery -A tasks runs metrics > /var/lib/node_exporter/celeriac.prom
    celery -A tasks runs metrics --json | jq '.queues[] | select(.oldest_s > 60)'
    """
    from status.cli_metrics import told  # noqa: PLC0415

    ctx.obj.app.loader.import_default_modules()  # its steps know their queues
    click.echo(told(as_json=as_json), nl=False)


@runs.command(cls=PlainCommand)
@click.argument("run_id", metavar="ID", shell_complete=cli_complete.run_ids)
@click.option("--reason", metavar="TEXT", default="", help="Kept in the run's history and error.")
@click.option("--abandon", is_flag=True, help="End it as it stands: its workflow is not asked, nothing is undone.")
@click.pass_context
def cancel(ctx: click.Context, *, run_id: str, reason: str, abandon: bool) -> None:
    """Ask a run to stop. What it has done is undone, if it says how.

    A run that is parked stops once the code fits it again; --abandon ends it now.

    \b
    celery -A tasks runs cancel order-7 --reason "the customer called"
    celery -A tasks runs cancel order-7 --abandon
    """
    before = api.get_status(_checked(run_id))
    if before.state is State.CANCELLED:
        click.echo(f"{run_id} is cancelled already")
        return
    if before.finished:
        raise Refused(f"run {run_id} has ended already, it is {before.state}: there is nothing to cancel")
    if abandon:
        ctx.obj.app.loader.import_default_modules()  # what it owes, its sagas know
        api.cancel(run_id, reason, abandon=True)
        click.echo(f"{run_id} is abandoned, it is {api.get_status(run_id).state}")
        return
    api.cancel(run_id, reason)
    click.echo(f"{run_id} is asked to stop; see how: runs watch {run_id}")
    if before.error is not None:
        click.echo(f"it is parked and stops once the code fits; to end it now: runs cancel {run_id} --abandon")


@runs.command(cls=PlainCommand)
@click.argument("run_id", metavar="ID", shell_complete=cli_complete.run_ids)
def retry(*, run_id: str) -> None:
    """Take up a failed run again, from the step that failed. A parked run looks again at its code.

    \b
    celery -A tasks runs retry order-7
    """
    api.retry(_checked(run_id))
    click.echo(f"{run_id} goes on; see how: runs watch {run_id}")


# A negative number is a value, not an option.
@runs.command(cls=PlainCommand, context_settings={"ignore_unknown_options": True})
@click.argument("run_id", metavar="ID", shell_complete=cli_complete.run_ids)
@click.argument("promise", shell_complete=cli_complete.promises)
@click.argument("value", metavar="[JSON]", required=False)
@click.option("--reject", metavar="MESSAGE", help="In place of a value: who awaits it sees a failure.")
@click.option("--code", type=int, default=500, show_default=True, help="Of the failure.")
@click.pass_context
def resolve(ctx: click.Context, run_id: str, promise: str, value: str | None, *, reject: str | None, code: int) -> None:
    """Give the promise of a run its value: what the run waits for, or will wait for later.

    A promise takes the first value; `runs show ID` names those that the run waits for now.

    \b
    celery -A tasks runs resolve order-7 approval true
    celery -A tasks runs resolve order-7 approval '{"by": "ada", "limit": 500}'
    celery -A tasks runs resolve order-7 approval --reject "not in the budget" --code 403
    """
    from status.cli_resolve import resolve_promise  # noqa: PLC0415

    ctx.obj.app.loader.import_default_modules()  # its workflows know the types of their promises
    coded = ctx.get_parameter_source("code") is not click.core.ParameterSource.DEFAULT
    click.echo(resolve_promise(_checked(run_id), promise, value, reject, code if coded else None))


@runs.command(cls=PlainCommand, context_settings={"ignore_unknown_options": True})
@click.argument("run_id", metavar="ID")
@click.argument("channel")
@click.argument("message", metavar="JSON")
@click.pass_context
def send(ctx: click.Context, run_id: str, channel: str, message: str) -> None:
    """Send a message to a channel of a run, which receives it after those that were sent before.

    `runs show ID` names the channels that the run waits for now.

    \b
    celery -A tasks runs send counter-1 orders '{"id": 7}'
    """
    from status.cli_resolve import send_message  # noqa: PLC0415

    ctx.obj.app.loader.import_default_modules()  # its workflows know the types of their channels
    click.echo(send_message(_checked(run_id), channel, message))


@runs.command(cls=CeleryCommand)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 60),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Workers and Redis have so many seconds to answer.",
)
@AS_JSON
@click.pass_context
def doctor(ctx: click.Context, *, timeout_s: float, as_json: bool) -> None:
    """Check Redis, settings, workers and runs; say what is wrong and what to do.

    Nothing is changed. The worst comes first. It takes a few seconds, and three more if nobody answers.

    \b
    Exit code: 0  all is well, or there is something to know
               1  warnings: something will go wrong, or waits for a person
               2  errors: work is lost, or stands still

    \b
    celery -A tasks runs doctor
    celery -A tasks runs doctor --json | jq -r '.findings[] | select(.severity != "ok") | .seen'
    """
    from status.cli_doctor import examine  # noqa: PLC0415

    ctx.exit(examine(ctx.obj.app, _app_name(ctx), timeout_s=timeout_s, as_json=as_json))


def _checked(run_id: str) -> str:
    from status.records import check_run_id  # noqa: PLC0415

    return check_run_id(run_id)


def _app_name(ctx: click.Context) -> str:
    name = ctx.find_root().params.get("app")
    return name if isinstance(name, str) else str(ctx.obj.app.main or "APP")
