"""Orders and products from files: one JSON object a line. All is checked before anything is submitted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from saga import schema
from status.errors import PayloadError
from tasks.domain import Order, Product
from tasks.models import Base, ProductRow, create_all

T = TypeVar("T")

#: The shop's own sample.
SAMPLE_ORDERS = Path(__file__).parent / "data" / "orders.jsonl"
SAMPLE_PRODUCTS = Path(__file__).parent / "data" / "products.jsonl"

_ORDER = TypeAdapter(Order)
_PRODUCT = TypeAdapter(Product)


def load_products(path: Path) -> tuple[Product, ...]:
    """The products of a file.

    Raises:
        PayloadError: With file, line, value and remedy: the file can't be read or is empty, a line is not
            JSON or not a product, or an SKU is there twice.
    """
    seen: dict[str, int] = {}
    found = []
    for number, product in _objects(path, _PRODUCT, "product"):
        _once(seen, product.sku, "SKU", path, number)
        found.append(product)
    return tuple(found)


def load_orders(path: Path, products: Iterable[Product]) -> tuple[Order, ...]:
    """The orders of a file.

    Args:
        products: What there is; an order for anything else is refused.

    Raises:
        PayloadError: With file, line, value and remedy: the file can't be read or is empty, a line is not
            JSON or not an order, an SKU is not among the products, or an order id is there twice.
    """
    skus = {product.sku for product in products}
    seen: dict[str, int] = {}
    found = []
    for number, order in _objects(path, _ORDER, "order"):
        _once(seen, order.order_id, "order id", path, number)
        for line in order.items:
            if line.sku not in skus:
                raise PayloadError(
                    f"{path}:{number}: order {order.order_id} names the SKU {line.sku!r}, which is not among the "
                    f"{len(skus)} products: correct it, or add it to the file of products"
                )
        found.append(order)
    return tuple(found)


def seed(engine: Engine, products: Iterable[Product]) -> None:
    """Create the tables and set the products' stock to what `products` say; other products stay."""
    create_all(engine)
    insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    rows = [
        {
            "sku": product.sku,
            "name": product.name,
            "unit_price": product.unit_price,
            "units_in_stock": product.units_in_stock,
            "discontinued": product.discontinued,
        }
        for product in products
    ]
    if not rows:
        return
    new = insert(ProductRow)
    changed = {name: new.excluded[name] for name in rows[0] if name != "sku"}
    with engine.begin() as connection:
        connection.execute(new.on_conflict_do_update(index_elements=["sku"], set_=changed), rows)


def clear(engine: Engine) -> None:
    """Take everything out of the shop and of the saga's tables: the next run starts from nothing."""
    create_all(engine)
    with engine.begin() as connection:
        for table in [*reversed(Base.metadata.sorted_tables), *schema.metadata.sorted_tables]:
            connection.execute(delete(table))


def stock(engine: Engine) -> Mapping[str, int]:
    """How many units of each article there are now."""
    with Session(engine) as session:
        return dict(session.execute(select(ProductRow.sku, ProductRow.units_in_stock)).all())


def _objects(path: Path, kind: TypeAdapter[T], what: str) -> Iterator[tuple[int, T]]:
    """Each line as (its number, what it holds); blank lines are left out."""
    some = False
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            some = True
            yield number, _parsed(kind, _json(line, path, number), path, number)
    if not some:
        raise PayloadError(f"{path}: there is no {what} in it: write one JSON object a line")


def _lines(path: Path) -> list[str]:
    try:
        # utf-8-sig: some editors put a mark before the first line.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise PayloadError(f"{path}: can't be read ({error.strerror}): check the name and its rights") from error
    except UnicodeDecodeError as error:
        raise PayloadError(f"{path}: is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def _json(line: str, path: Path, number: int) -> Any:
    try:
        # Decimals are read from their text: 12.30 must not pass through a float.
        return json.loads(line, parse_float=str)
    except json.JSONDecodeError as error:
        near = line[max(0, error.pos - 15) : error.pos + 15].strip()
        raise PayloadError(
            f"{path}:{number}: is not JSON ({error.msg} at column {error.colno}, near {near!r}): "
            "write one JSON object a line"
        ) from error


def _parsed(kind: TypeAdapter[T], value: Any, path: Path, number: int) -> T:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        given = "" if first["type"] == "missing" else f", got {_short(first['input'])}"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise PayloadError(
            f"{path}:{number}: {where}: {first['msg']}{given}{more}: correct this line; nothing was submitted"
        ) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _once(seen: dict[str, int], name: str, what: str, path: Path, number: int) -> None:
    if name in seen:
        raise PayloadError(
            f"{path}:{number}: the {what} {name!r} is in line {seen[name]} already: each may be there once"
        )
    seen[name] = number
