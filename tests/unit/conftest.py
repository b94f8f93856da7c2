"""What several of these tests stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from saga import database
from shop import PRODUCTS, Shop
from tasks import loading


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop with two products, on SQLite, that the steps find as the configured database."""

    class Configured:
        database_url = f"sqlite:///{tmp_path}/shop.db"

    for name in ("SMTP_HOST", "SMTP_PORT", "SMTP_SENDER", "SHOP_SIMULATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(database, "places", Configured)
    engine = database.engine()
    loading.seed(engine, PRODUCTS)
    return Shop(engine)
