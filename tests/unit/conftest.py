"""What several of these tests stand on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from saga import database
from shop import PRODUCTS, Shop
from tasks import loading

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def sql_url(tmp_path: Path) -> Iterator[str]:
    """An empty database: SQLite, or the one of TEST_DATABASE_URL, which is emptied for each test."""
    given = os.environ.get("TEST_DATABASE_URL", "")
    if given:
        emptied = create_engine(given)
        with emptied.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        emptied.dispose()
    yield given or f"sqlite:///{tmp_path}/new folder/test.db"
    database.dispose()


@pytest.fixture
def shop(sql_url: str, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop with two products, that the steps find as the configured database."""

    class Configured:
        database_url = sql_url

    for name in ("SMTP_HOST", "SMTP_PORT", "SMTP_SENDER", "SHOP_SIMULATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(database, "places", Configured)
    engine = database.engine()
    loading.seed(engine, PRODUCTS)
    return Shop(engine)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the documentation, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    # A proxy that is not there: whoever asks for something outside hears so.
    env = os.environ | {
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "NO_MKDOCS_2_WARNING": "1",
    }
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder
