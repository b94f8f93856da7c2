"""Ten thousand messages to one run, from several processes, while workers are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import cycle

import pytest

from processes import client_of
from status import get_status, here
from waiting import wait_until

MESSAGES, SENDERS = 10_000, ("ann", "bob", "eve", "sam")
#: A worker is killed when the run is in these rounds (of 100).
KILLED_IN = (5, 20, 40, 70)
QUIET = ("--without-mingle", "--without-gossip")


@pytest.fixture
def mailbox(redis_url, monkeypatch):
    monkeypatch.setenv("REDIS_URL", redis_url)
    from apps import mailbox

    with client_of(mailbox.app, redis_url):
        yield mailbox


@pytest.fixture
def senders(worker_env):
    """Starts the processes that send; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(run_id: str) -> list[subprocess.Popen[str]]:
        for name in SENDERS:
            command = [sys.executable, "-m", "mailbox", run_id, name, str(MESSAGES // len(SENDERS))]
            started.append(subprocess.Popen(command, env=os.environ | worker_env, stderr=subprocess.PIPE, text=True))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.timeout(240)
def test_ten_thousand_messages_are_received_once_and_in_order_though_workers_are_killed(mailbox, worker, senders):
    workers = [worker("mailbox", name=name, concurrency=1, options=QUIET) for name in ("w1", "w2")]
    handle = mailbox.read.submit(MESSAGES, {}, run_id="box")
    sending = senders("box")

    for at, victim in zip(KILLED_IN, cycle(workers), strict=False):
        wait_until(lambda at=at: get_status("box").round >= at or get_status("box").finished, f"round {at}", 60)
        victim.kill()
        victim.launch()

    assert handle.result(timeout_s=120) == dict.fromkeys(SENDERS, MESSAGES // len(SENDERS))
    assert [process.wait(30) for process in sending] == [0] * len(SENDERS)
    assert get_status("box").round == MESSAGES // sum(mailbox.AT_ONCE)
    left = here.store().redis.exists(here.store().keys.unread("box", "mail"), here.store().keys.channels("box"))
    assert left == 0
    for node in workers:
        node.kill()  # how they stop is nothing to wait for
