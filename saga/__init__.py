"""Undoes: sagas, the log of what is owed, and receipts that make effects happen once."""

from saga.chain import chain
from saga.effects import Receipt
from saga.receipt import receipt
from saga.saga import CompensatedStep, SafeStep, Saga
from saga.strategy import Strategy
from status.doctor import Look as _Look
from status.doctor import add as _add

__all__ = ["CompensatedStep", "Receipt", "SafeStep", "Saga", "Strategy", "chain", "receipt"]

_add(_Look.SAGA, "saga.doctor:look")
