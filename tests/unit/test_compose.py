"""docker-compose.yml and Dockerfile: well-formed, and about the same queues and files as the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import celeryconfig

ROOT = Path(__file__).parent.parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()
PASSWORDS = {"VALKEY_PASSWORD": "a", "POSTGRES_PASSWORD": "b", "FLOWER_BASIC_AUTH": "ada:c"}


def checked(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    found = shutil.which("docker-compose")
    if found is None:
        pytest.skip("docker-compose is not installed: apt-get install docker-compose (no engine is needed)")
    clean = {name: value for name, value in os.environ.items() if name not in PASSWORDS}
    command = [found, "-f", str(ROOT / "docker-compose.yml"), "config", "-q"]
    return subprocess.run(command, env=clean | env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def workers() -> dict[str, dict[str, object]]:
    """The worker services, as `celeriac_workers` would have them."""
    services = re.split(r"^  (\w+):$", COMPOSE.partition("\nservices:\n")[2], flags=re.MULTILINE)[1:]
    texts = dict(zip(services[::2], services[1::2], strict=True))
    return {name: group(text) for name, text in texts.items() if "celery worker" in text}


def group(text: str) -> dict[str, object]:
    patterns = {"queues": r"-Q (\S+)", "pool": r"-P (\S+)", "concurrency": r"-c (\d+)"}
    patterns |= {"prefetch": r"--prefetch-multiplier=(\d+)", "nice": r"nice -n (\d+)"}
    said = {name: found[1] for name, pattern in patterns.items() if (found := re.search(pattern, text))}
    values = {name: int(value) if value.isdecimal() else value for name, value in said.items()}
    return values | {"queues": said["queues"].split(",")}


def test_compose_takes_the_file():
    answer = checked(PASSWORDS)

    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("missing", sorted(PASSWORDS))
def test_nothing_starts_without_its_passwords(missing):
    answer = checked({name: value for name, value in PASSWORDS.items() if name != missing})

    assert answer.returncode != 0
    assert missing in answer.stderr


def test_the_services_are_the_groups_of_the_settings():
    assert workers() == celeryconfig.celeriac_workers


def test_each_queue_has_a_worker():
    served = {queue for found in workers().values() for queue in found["queues"]}

    assert {queue.name for queue in celeryconfig.task_queues} - served == set()


def test_redis_keeps_what_it_confirmed_and_throws_nothing_away():
    assert "--appendonly yes" in COMPOSE
    assert "--maxmemory-policy noeviction" in COMPOSE


def test_all_that_is_shipped_goes_into_the_image():
    copied = set(re.findall(r"[\w./-]+", " ".join(re.findall(r"^COPY (?!--from)(.+)$", _dockerfile(), re.MULTILINE))))

    shipped = {"canvas", "saga", "status", "tasks", "celeryconfig.py"}
    assert shipped - copied == set()
    assert [name for name in copied - {"."} if not (ROOT / name.rstrip("/")).exists() and name != "./"] == []


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()
