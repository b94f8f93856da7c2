"""`make demo`: sells a file of orders, from nothing, before your eyes.

    python -m tasks.demo [--orders FILE] [--products FILE] [--json] [--keep]

Exit code 0: every order ended and the invariants hold; 1: not so; 2: the input won't do.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from saga import database
from status import embedded, here
from status.errors import OrchestrationError, TimedOut
from status.following import unsettled
from status.places import places
from status.reading import Reader
from tasks import invariants, loading
from tasks.app import app
from tasks.demo_crew import Crew, WorkersFailed, fresh_folder, wipe
from tasks.demo_summary import PATHS, Summary
from tasks.demo_tally import Tally, path, run_id
from tasks.demo_view import shown
from tasks.domain import Order, Product
from tasks.orders import complete_order

#: An order that has not ended after this long, and a second more for each order there is, is stuck.
PATIENCE_S = 90.0

#: Losers of races that ran on, and their undos, have this long after the last order's end.
SETTLE_S = 30.0

#: Events are taken together for so long, and then for so long not: what follows them would
#: otherwise take from the workers the CPU that they are watched with.
AWAKE_S = 0.05
GATHER_S = 0.15


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--orders", type=click.Path(path_type=Path), default=loading.SAMPLE_ORDERS, help="One order a line.")
@click.option("--products", type=click.Path(path_type=Path), help="One product a line, with its stock.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON; all else goes to stderr.")
@click.option("--keep", is_flag=True, help="Keep runs, database and logs, to look at them afterwards.")
def main(*, orders: Path, products: Path | None, as_json: bool, keep: bool) -> None:
    """Sell a file of orders, from nothing, and check what is left."""
    console = Console(stderr=as_json)
    for signum in STOPS:
        signal.signal(signum, _interrupt)
    try:
        stock = loading.load_products(products or loading.SAMPLE_PRODUCTS)
        wanted = loading.load_orders(orders, stock)
        summary = _sell_in_own_folder(console, wanted, stock, keep=keep)
    except OrchestrationError as error:
        _end(f"Error: {error}", 2)
    except WorkersFailed as error:
        _end(f"Error: {error}", 1)
    except KeyboardInterrupt:
        _end("interrupted; everything that was started is ended", 130)
    if as_json:
        click.echo(summary.as_json())
    sys.exit(summary.exit_code)


def _end(message: str, exit_code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(exit_code)


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _sell_in_own_folder(
    console: Console, orders: Sequence[Order], products: Sequence[Product], *, keep: bool
) -> Summary:
    base = Path(os.environ.get("CELERIAC_DATA_DIR") or ".data").expanduser().resolve()
    with fresh_folder(base / "demo") as folder:
        with _server_and_workers(console, folder, products):
            summary = sell(console, orders)
            summary.show(console)
        if keep or summary.exit_code:
            look = f"CELERIAC_DATA_DIR={folder} celery -A tasks runs list"
            console.print(f"kept in {folder}; look at it: {look}", soft_wrap=True, highlight=False)
        else:
            wipe(folder)
    return summary


@contextmanager
def _server_and_workers(console: Console, folder: Path, products: Sequence[Product]) -> Iterator[None]:
    """Valkey, a shop full of products and workers; all ended at the end, whatever happens."""
    try:
        place = places()
        loading.seed(database.engine(), products)
        crew = Crew(app, place, folder / "workers.log")
        console.print(f"Valkey runs; starting the workers {', '.join(crew.names)} …", highlight=False)
        with _ended(crew):
            crew.start()
            yield
    finally:
        database.dispose()
        embedded.stop()


@contextmanager
def _ended(crew: Crew) -> Iterator[None]:
    try:
        yield
    finally:
        # One more Ctrl-C is meant for the workers' patience, not for this process' order.
        before = {signum: signal.signal(signum, lambda *_: crew.hurry()) for signum in STOPS}
        try:
            crew.stop()
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def sell(console: Console, orders: Sequence[Order]) -> Summary:
    """Submit all orders, show how they go, and check what is left."""
    engine, reader = database.engine(), here.reader()
    before = loading.stock(engine)
    tally = Tally.of(order.order_id for order in orders)
    with shown(console, tally):
        for order in orders:
            complete_order.submit(order, run_id=run_id(order.order_id))
            tally.submitted += 1
        follow(reader, tally, PATIENCE_S + len(orders))
        restless = settle(reader, tally)
    violations = None
    if not tally.unfinished and not restless:
        violations = invariants.check(engine, before, _outcomes(reader, orders))
    return Summary(tally, _paths(reader, tally), violations, restless)


def follow(reader: Reader, tally: Tally, timeout_s: float) -> None:
    """Take in what happens until all orders have ended, or time is up."""
    awake_s = time.monotonic()
    try:
        for event in reader.watch_many(tally.rows, timeout_s):
            tally.apply(event)
            if time.monotonic() - awake_s > AWAKE_S:
                time.sleep(GATHER_S)
                awake_s = time.monotonic()
    except TimedOut:
        # Not an error of the demo: the summary names those that are stuck.
        return


def settle(reader: Reader, tally: Tally) -> list[str]:
    """Wait for what goes on after the end of runs; those of which something still does when time is up."""
    end_s = time.monotonic() + SETTLE_S
    while (restless := unsettled(reader, tally.rows)) and time.monotonic() < end_s:
        time.sleep(0.1)
    return restless


def _outcomes(reader: Reader, orders: Sequence[Order]) -> list[invariants.Outcome]:
    """As Redis says, not as the view has it."""
    return [
        invariants.Outcome(
            order.order_id, order.total, completed=reader.result(run_id(order.order_id))[0] == "completed"
        )
        for order in orders
    ]


def _paths(reader: Reader, tally: Tally) -> dict[str, str]:
    if len(tally.rows) > PATHS:
        return {}
    paths = {}
    for row in tally.rows.values():
        error = reader.result(row.run_id)[2]
        paths[row.run_id] = path(row, reader.history(row.run_id), error.message if error else "")
    return paths


if __name__ == "__main__":
    main()
