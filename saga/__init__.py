"""Undoes: sagas, the log of what is owed, and receipts that make effects happen once."""

from typing import TYPE_CHECKING

from saga import operate
from saga.chain import chain
from saga.effects import Receipt
from saga.receipt import receipt
from saga.resume import resume_run
from saga.saga import CompensatedStep, SafeStep, Saga
from saga.strategy import Strategy
from status import cli_more
from status.doctor import Look as _Look
from status.doctor import add as _add

if TYPE_CHECKING:
    import click

__all__ = ["CompensatedStep", "Receipt", "SafeStep", "Saga", "Strategy", "chain", "receipt"]

_add(_Look.SAGA, "saga.doctor:look")

#: Imported for what it registers: the workflow behind `runs saga resume`. `operate` is for programs.
_ = resume_run, operate


def _commands() -> "click.Command":
    from saga.cli import saga  # noqa: PLC0415  # workers have no use for it

    return saga


cli_more.commands["saga"] = _commands
