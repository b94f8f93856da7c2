"""The shop: a Celery app whose orders run as workflows, and what they are made of; and the patterns' catalogue."""

from typing import TYPE_CHECKING

from status import cli_more
from tasks import catalogue, orders  # their import registers all workflows and steps
from tasks.app import app

if TYPE_CHECKING:
    import click

__all__ = ["app", "catalogue", "orders"]


def _demo() -> "click.Command":
    from tasks.showcase.cli import demo  # noqa: PLC0415  # workers have no use for it

    return demo


cli_more.commands["demo"] = _demo
