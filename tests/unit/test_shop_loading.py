"""Files of orders and products: what is read, and what each mistake in them prints."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shop import PRODUCTS, Shop
from status.errors import PayloadError
from tasks import fraud, inventory, loading, payment, shipping
from tasks.domain import Order, Product, Provider
from tasks.models import PaymentRow, ReservationRow

NORTHWIND = Path(__file__).parents[3] / "shared" / "data"

ORDER: dict[str, Any] = {
    "order_id": "o1",
    "customer_id": "ADA",
    "items": [{"sku": "A", "quantity": 2, "unit_price": "10.00"}],
    "total": "20.00",
    "shipping_address": {"name": "Ada", "street": "Lane 1", "city": "Elm", "country": "Ireland"},
}


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "orders.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def changed(**fields: Any) -> dict[str, Any]:
    return {**ORDER, **fields}


def test_an_order_is_read_with_its_defaults(tmp_path: Path) -> None:
    (order,) = loading.load_orders(write(tmp_path, ORDER, ""), PRODUCTS)

    assert (order.order_id, order.total, order.items[0].quantity) == ("o1", Decimal("20.00"), 2)
    assert (order.payment_method, order.email, order.simulate) == ("card", None, {})


def test_decimals_do_not_pass_through_a_float(tmp_path: Path) -> None:
    line = json.dumps(changed(total="X")).replace('"X"', "1234567890.10")

    (order,) = loading.load_orders(write(tmp_path, line), PRODUCTS)
    assert str(order.total) == "1234567890.10"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"order_id": ', r"orders.jsonl:2: is not JSON \(Expecting value at column 14, near '\{\"order_id\":'\)"),
        ([1], r"orders.jsonl:2: the line: .* got \[1\]"),
        (changed(order_id="o 2"), r"orders.jsonl:2: order_id: .*, got 'o 2'"),
        (changed(items=[]), r"orders.jsonl:2: items: .*at least 1 item.*, got \[\]"),
        (changed(items=[{"sku": "A", "quantity": -3}]), r":2: items\.0\.quantity: .*greater than 0, got -3"),
        (changed(items=[{"sku": "A", "quantity": 0}]), r":2: items\.0\.quantity: .*greater than 0, got 0"),
        (changed(items=[{"sku": "A", "quantity": 1.5}]), r":2: items\.0\.quantity: .*, got '1.5'"),
        (changed(total="-0.01"), r":2: total: .*greater than or equal to 0, got '-0.01'"),
        (changed(total="1.001"), r":2: total: .*no more than 2 decimal places, got '1.001'"),
        (changed(total="NaN"), r":2: total: .*finite number, got 'NaN'"),
        (changed(totl="1"), r":2: totl: Unexpected keyword argument, got '1'"),
        (changed(simulate={"strip": {}}), r":2: simulate\.strip\..*, got 'strip'"),
        (changed(simulate={"stripe": {"latency_ms": -1}}), r":2: simulate\.stripe\.latency_ms: .*, got -1"),
        ({"order_id": "o2"}, r":2: customer_id: .*required \(and 3 more\): correct this line; nothing was submitted"),
        (changed(order_id="o2", items=[{"sku": "Z", "quantity": 1}]), r":2: order o2 names the SKU 'Z', .*2 products"),
        (ORDER, r":2: the order id 'o1' is in line 1 already"),
    ],
)
def test_a_bad_line_is_named_with_its_value_and_remedy(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(PayloadError, match=said) as raised:
        loading.load_orders(write(tmp_path, ORDER, line), PRODUCTS)

    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match=r"none.jsonl: can't be read \(No such file or directory\): check"):
        loading.load_orders(tmp_path / "none.jsonl", PRODUCTS)


def test_a_file_without_an_order(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match=r"there is no order in it: write one JSON object a line"):
        loading.load_orders(write(tmp_path, "", "  "), PRODUCTS)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes("Größe".encode("latin-1"))

    with pytest.raises(PayloadError, match=r"is not UTF-8 \(byte 2\): save it as UTF-8"):
        loading.load_products(path)


def test_a_mark_before_the_first_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "marked.jsonl"
    path.write_text(json.dumps(ORDER), encoding="utf-8-sig")

    assert len(loading.load_orders(path, PRODUCTS)) == 1


def test_a_product_that_is_there_twice(tmp_path: Path) -> None:
    product = {"sku": "A", "name": "Anvil", "unit_price": "1", "units_in_stock": 1}

    with pytest.raises(PayloadError, match=r":2: the SKU 'A' is in line 1 already"):
        loading.load_products(write(tmp_path, product, product))


def test_seed_sets_the_stock_and_can_be_repeated(shop: Shop) -> None:
    shop.run(inventory.reserve, "o1", loading.load_orders(loading.SAMPLE_ORDERS, _sample())[0].items[:0])
    loading.seed(shop.engine, [Product(sku="A", name="Anvil", unit_price=Decimal(9), units_in_stock=50)])
    loading.seed(shop.engine, [])

    assert shop.stock() == {"A": 50, "B": 3}


def test_clear_starts_from_nothing(shop: Shop) -> None:
    shop.run(inventory.reserve, "o1", loading.load_orders(loading.SAMPLE_ORDERS, _sample())[0].items[:0])
    shop.run(payment.charge_stripe, "o1", Decimal(1))

    loading.clear(shop.engine)

    assert shop.stock() == {}
    assert (shop.rows(ReservationRow), shop.rows(PaymentRow)) == (0, 0)
    shop.run(payment.charge_stripe, "o1", Decimal(1))
    assert shop.rows(PaymentRow) == 1


# The sample


def _sample() -> tuple[Product, ...]:
    return loading.load_products(loading.SAMPLE_PRODUCTS)


def _orders() -> tuple[Order, ...]:
    return loading.load_orders(loading.SAMPLE_ORDERS, _sample())


def test_the_sample_has_every_path(shop: Shop) -> None:
    loading.seed(shop.engine, _sample())
    orders = _orders()
    assert len(orders) >= 24

    refused_by = {
        "stock": [o for o in orders if not shop.run(inventory.check, o.items)],
        "method": [o for o in orders if not shop.run(payment.validate, o.payment_method)],
        "address": [o for o in orders if not shop.run(shipping.check_availability, o.shipping_address)],
        "customer": [o for o in orders if not shop.run(fraud.check, o.customer_id, o.total)],
    }
    assert all(refused_by.values())
    told = [{provider for provider, how in o.simulate.items() if how.error or how.latency_ms} for o in orders]
    for path in (
        {Provider.STRIPE},
        {Provider.STRIPE, Provider.PAYPAL},
        {Provider.SLOTS},
        {Provider.WAREHOUSE},
        {Provider.CARRIER},
        {Provider.BILLING},
        {Provider.EMAIL},
        {Provider.EMAIL, Provider.SMS, Provider.PUSH},
    ):
        assert path in told
    assert sum(not simulated for simulated in told) >= 10


def test_the_sample_takes_a_few_seconds_at_most() -> None:
    assert all(how.latency_ms <= 1000 for order in _orders() for how in order.simulate.values())


def test_the_sample_s_totals_are_those_of_its_lines() -> None:
    for order in _orders():
        lines = sum(line.quantity * line.unit_price * (1 - line.discount) for line in order.items)
        assert order.total == round(lines, 2)


# Real input


@pytest.mark.data
@pytest.mark.skipif(not NORTHWIND.is_dir(), reason=f"no Northwind orders: {NORTHWIND.name} is not beside the checkout")
def test_the_northwind_orders_are_read() -> None:
    products = loading.load_products(NORTHWIND / "northwind_products.jsonl")
    orders = loading.load_orders(NORTHWIND / "northwind_orders.jsonl", products)

    assert (len(products), len(orders), sum(len(order.items) for order in orders)) == (77, 830, 2155)
    assert sum(order.total for order in orders) > 1_000_000
