"""The shop on a database of its own, without workers: steps are called as functions, as a named step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from canvas.context import CurrentStep, running_as
from tasks import invariants, loading
from tasks.domain import Address, OrderLine, Product
from tasks.models import Base

P = ParamSpec("P")
R = TypeVar("R")

HOME = Address(name="Ada", street="Lane 1", city="Elm", country="Ireland")
PRODUCTS = (
    Product(sku="A", name="Anvil", unit_price=Decimal("10.00"), units_in_stock=5),
    Product(sku="B", name="Bell", unit_price=Decimal("2.50"), units_in_stock=3),
)
ITEMS = (OrderLine(sku="A", quantity=2), OrderLine(sku="B", quantity=1))


@dataclass
class Shop:
    """Runs steps and looks at what they left."""

    engine: Engine

    def run(
        self,
        step: Callable[P, R],
        *args: Any,
        key: str | None = None,
        undoes: str | None = None,
        attempt: int = 1,
        run_id: str = "r1",
    ) -> R:
        """Call a step as one of run `run_id`; the same step has the same key unless another is given."""
        name = str(getattr(step, "name", step))
        here = CurrentStep(
            run_id,
            f"{run_id}/{name}",
            key or f"{run_id}/{name}",
            attempt=attempt,
            undoes=undoes,
            step_name=name,
            arguments=repr(args),
        )
        with running_as(here):
            return step(*args)  # type: ignore[call-arg]

    def stock(self) -> dict[str, int]:
        return dict(loading.stock(self.engine))

    def rows(self, table: type[Base], **where: Any) -> int:
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).select_from(table).filter_by(**where)) or 0

    def broken(self, *, completed: bool, total: str = "22.50", order_id: str = "o1") -> list[str]:
        """The invariants that do not hold if this order ended so."""
        before = {product.sku: product.units_in_stock for product in PRODUCTS}
        return invariants.check(self.engine, before, [invariants.Outcome(order_id, Decimal(total), completed)])
