"""`celery -A tasks runs demo`: the command."""

from __future__ import annotations

import time

import click
from celery import Celery
from celery.bin.base import CeleryCommand
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saga import database
from status import here
from status.cli_plain import plainly
from status.cli_text import dumps
from status.places import places
from tasks import catalogue_data
from tasks.demo_crew import WorkersFailed
from tasks.demo_stop import Interrupted, Stop
from tasks.showcase.crew import at_work
from tasks.showcase.patterns import PATTERNS, Pattern, find
from tasks.showcase.report import Report
from tasks.showcase.stage import Stage, Stuck

EXIT_BROKEN, EXIT_INTERRUPTED = 1, 130


@click.command(cls=CeleryCommand)
@click.argument("pattern", metavar="[PATTERN]", required=False)
@click.option("--list", "as_list", is_flag=True, help="Say which patterns there are.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    metavar="S",
    help="You have so many seconds to answer what asks for you; 0: do not ask.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON; all else goes to stderr.")
@click.pass_context
def demo(ctx: click.Context, *, pattern: str | None, as_list: bool, wait_s: float, as_json: bool) -> None:
    """Show one PATTERN of the catalogue at work, and check what it promises.

    PATTERN is a name, a number, or what the guide calls it. Nothing need run: without REDIS_URL there is an
    embedded Valkey, and without a worker for the catalogue's queues one is started, which ends with the demo.
    The runs stay, for `runs show`.

    \b
    Exit code: 0    what was checked holds
               1    it does not, or a run did not end
               2    the command was refused: it says why
               130  Ctrl-C

    \b
    celery -A tasks runs demo --list
    celery -A tasks runs demo race
    celery -A tasks runs demo FanOutFail
    celery -A tasks runs demo approval --wait 60
    celery -A tasks runs demo saga --json 2>/dev/null | jq .checks
    """
    with plainly():
        if pattern is None or as_list:
            _say_which(as_json=as_json)
            return
        chosen = find(pattern)
        ctx.exit(_play(ctx.obj.app, chosen, Console(stderr=as_json), wait_s=wait_s, as_json=as_json))


def _say_which(*, as_json: bool) -> None:
    if as_json:
        fields = ("number", "name", "guide", "does", "workflows")
        click.echo(dumps({"patterns": [{name: getattr(one, name) for name in fields} for one in PATTERNS]}))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "pattern", "in the guide", "what it shows"):
        table.add_column(column, overflow="fold")
    for one in PATTERNS:
        table.add_row(str(one.number), Text(one.name, style="bold"), ", ".join(one.guide), one.does)
    Console().print(table)


def _play(app: Celery, pattern: Pattern, console: Console, *, wait_s: float, as_json: bool) -> int:
    here.check()
    report = Report(pattern.name, ", ".join(pattern.guide))
    stop = Stop()
    stop.listen()
    try:
        _play_at_work(app, pattern, Stage(console, stop, report, wait_s))
    except Interrupted:
        click.echo("interrupted; what was started is ended", err=True)
        return EXIT_INTERRUPTED
    except (Stuck, WorkersFailed) as error:
        click.echo(f"Error: {error}", err=True)
        return EXIT_BROKEN
    finally:
        database.dispose()
    report.show(console)
    if as_json:
        click.echo(report.as_json())
    return 0 if report.holds else EXIT_BROKEN


def _play_at_work(app: Celery, pattern: Pattern, stage: Stage) -> None:
    stage.console.print(Text(f"{pattern.number}. {pattern.name}: {pattern.does}", style="bold"), soft_wrap=True)
    stage.console.print(Text(f"tasks/catalogue.py: {', '.join(pattern.workflows)}", style="dim"), soft_wrap=True)
    with at_work(app, places(), stage.console, stage.stop):
        catalogue_data.fill()
        began_s = time.monotonic()
        try:
            pattern.play(stage)
        finally:
            stage.abandon()
        stage.report.took_s = time.monotonic() - began_s
