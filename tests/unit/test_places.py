"""Where Redis and SQL are, as far as settings say it; what a server does is in test_embedded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from status.errors import ConfigError
from status.places import places, reset


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "my data"


@pytest.fixture
def here(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The places of this process are those of the test."""
    monkeypatch.setenv("CELERIAC_DATA_DIR", str(data_dir))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    reset()
    yield
    reset()


def test_with_both_urls_nothing_is_started_and_nothing_written(here, data_dir, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6380/1")
    monkeypatch.setenv("DATABASE_URL", "sqlite:////elsewhere.db")

    found = places()

    assert (found.redis_url, found.embedded) == ("redis://elsewhere:6380/1", False)
    assert found.database_url == "sqlite:////elsewhere.db"
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("REDIS_URL", "http://:secret@here/0", r"REDIS_URL=http://\*\*\*@here/0 .* write redis://"),
        ("REDIS_URL", "localhost:6379", "write redis://"),
        ("REDIS_URL", "redis://here:port/0", "no valid port"),
        ("DATABASE_URL", "postgres://me:secret@here/shop", r"postgres://\*\*\*@here.*postgresql\+psycopg://"),
        ("DATABASE_URL", "shop.db", "sqlite:////absolute/path.db"),
        ("CELERIAC_DATA_DIR", "/dev/null/data", "set CELERIAC_DATA_DIR to a folder that can be written"),
        ("CELERIAC_DATA_DIR", "/what?", "has a '\\?' in its path"),
        ("REDIS_SERVER", "/nowhere/redis-server", "REDIS_SERVER=/nowhere/redis-server .* set REDIS_URL"),
        ("REDIS_SERVER", "/bin/false", "ended with exit code 1 before it was ready"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value_and_the_remedy(here, monkeypatch, setting, value, said):
    monkeypatch.setenv(setting, value)

    with pytest.raises(ConfigError, match=said) as refused:
        places()

    assert "secret" not in str(refused.value)


def test_a_platform_without_a_binary_is_told_what_to_set(here, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Plan9")

    with pytest.raises(ConfigError, match=r"Plan9.*set REDIS_URL.*or REDIS_SERVER"):
        places()
