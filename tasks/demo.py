"""`make demo`: sells a file of orders, from nothing, before your eyes.

    python -m tasks.demo [--orders FILE] [--products FILE] [--json] [--keep]

Exit code 0: every order ended and the invariants hold; 1: not so; 2: the input won't do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from saga import database
from status import embedded, here
from status.errors import OrchestrationError
from status.following import Follower, unsettled
from status.places import places
from status.reading import Reader
from tasks import invariants, loading
from tasks.app import app
from tasks.demo_crew import Crew, WorkersFailed, fresh_folder, wipe
from tasks.demo_stop import Interrupted, Stop
from tasks.demo_summary import PATHS, Summary
from tasks.demo_tally import Tally, path, run_id
from tasks.demo_view import shown
from tasks.domain import Order, Product
from tasks.orders import complete_order

#: An order that has not ended after this long, and a second more for each order there is, is stuck.
PATIENCE_S = 90.0

#: Losers of races that ran on, and their undos, have this long after the last order's end.
SETTLE_S = 30.0

#: If nothing happens, Ctrl-C is heard after this time.
LISTEN_S = 0.5

#: Between two reads of what happened: to read each event by itself would take CPU from the workers.
GATHER_S = 0.15


@click.command()
@click.option("--orders", type=click.Path(path_type=Path), default=loading.SAMPLE_ORDERS, help="One order a line.")
@click.option("--products", type=click.Path(path_type=Path), help="One product a line, with its stock.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON; all else goes to stderr.")
@click.option("--keep", is_flag=True, help="Keep runs, database and logs, to look at them afterwards.")
def main(*, orders: Path, products: Path | None, as_json: bool, keep: bool) -> None:
    """Sell a file of orders, from nothing, and check what is left."""
    console = Console(stderr=as_json)
    try:
        stock = loading.load_products(products or loading.SAMPLE_PRODUCTS)
        wanted = loading.load_orders(orders, stock)
        summary = _sell_in_own_folder(console, wanted, stock, keep=keep)
    except OrchestrationError as error:
        _end(f"Error: {error}", 2)
    except WorkersFailed as error:
        _end(f"Error: {error}", 1)
    except Interrupted:
        _end("interrupted; everything that was started is ended", 130)
    if as_json:
        click.echo(summary.as_json())
    sys.exit(summary.exit_code)


def _end(message: str, exit_code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(exit_code)


def _sell_in_own_folder(
    console: Console, orders: Sequence[Order], products: Sequence[Product], *, keep: bool
) -> Summary:
    base = Path(os.environ.get("CELERIAC_DATA_DIR") or ".data").expanduser().resolve()
    stop = Stop()
    with fresh_folder(base / "demo") as folder:
        stop.listen()
        with _server_and_workers(console, folder, products, stop):
            summary = sell(console, orders, stop)
            summary.show(console)
        if keep or summary.exit_code:
            look = f"CELERIAC_DATA_DIR={folder} celery -A tasks runs list"
            console.print(f"kept in {folder}; look at it: {look}", soft_wrap=True, highlight=False)
        else:
            wipe(folder)
    return summary


@contextmanager
def _server_and_workers(console: Console, folder: Path, products: Sequence[Product], stop: Stop) -> Iterator[None]:
    """Valkey, a shop full of products and workers; all ended at the end, whatever happens."""
    try:
        place = places()
        loading.seed(database.engine(), products)
        crew = Crew(app, place, folder / "workers.log")
        stop.hurry = crew.hurry
        console.print(f"Valkey runs; starting the workers {', '.join(crew.names)} …", highlight=False)
        try:
            crew.start(stop)
            yield
        except Interrupted:
            crew.hurry()  # nobody waits for what they still do
            raise
        finally:
            crew.stop()
    finally:
        database.dispose()
        embedded.stop()


def sell(console: Console, orders: Sequence[Order], stop: Stop) -> Summary:
    """Submit all orders, show how they go, and check what is left.

    Raises:
        Interrupted: `stop` was asked for.
    """
    engine, reader = database.engine(), here.reader()
    before = loading.stock(engine)
    tally = Tally.of(order.order_id for order in orders)
    with shown(console, tally):
        for order in orders:
            stop.check()
            complete_order.submit(order, run_id=run_id(order.order_id))
            tally.submitted += 1
        follow(Follower(reader), tally, PATIENCE_S + len(orders), stop)
        restless = settle(reader, tally, stop)
    violations = None
    if not tally.unfinished and not restless:
        violations = invariants.check(engine, before, _outcomes(reader, orders))
    return Summary(tally, _paths(reader, tally), violations, restless)


def follow(follower: Follower, tally: Tally, timeout_s: float, stop: Stop) -> None:
    """Take in what happens until all orders have ended, or time is up: the summary names those that are stuck."""
    for row in tally.unfinished:
        follower.follow(row.run_id, from_start=True)
    end_s = time.monotonic() + timeout_s
    while tally.unfinished and time.monotonic() < end_s:
        stop.check()
        for event in follower.read(LISTEN_S):
            tally.apply(event)
            if tally.rows[event.run_id].ended:
                follower.forget(event.run_id)
        time.sleep(GATHER_S)


def settle(reader: Reader, tally: Tally, stop: Stop) -> list[str]:
    """Wait for what goes on after the end of runs; those of which something still does when time is up."""
    end_s = time.monotonic() + SETTLE_S
    while (restless := unsettled(reader, tally.rows)) and time.monotonic() < end_s:
        stop.check()
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
