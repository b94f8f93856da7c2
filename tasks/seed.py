"""`python -m tasks.seed`: fill the shop's stock, so that `celery -A tasks up` has something to sell."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from saga import database
from status.errors import OrchestrationError
from tasks import loading


@click.command()
@click.option(
    "--products",
    type=click.Path(path_type=Path),
    default=loading.SAMPLE_PRODUCTS,
    help="A file of products, one JSON object a line; the shop's own sample if it is left out.",
)
def main(products: Path) -> None:
    """Set the stock of each product in a file to what the file says.

    Example: python -m tasks.seed, then: celery -A tasks runs submit orders.complete tasks/data/orders.jsonl
    """
    try:
        found = loading.load_products(products)
        loading.seed(database.engine(), found)
    except OrchestrationError as error:
        click.echo(f"seed: {error}", err=True)
        sys.exit(2)
    click.echo(f"{len(found)} products, {sum(product.units_in_stock for product in found)} units in stock")


if __name__ == "__main__":
    main()
