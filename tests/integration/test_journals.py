"""What a turn reads of a long journal: what its process has not read before. Real Redis, no worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from runs import Runs, part
from status.journals import Journals
from status.records import News
from status.settings import Settings
from status.store import Store


class Workers(Runs):
    """A run whose turns are taken by two processes, each with what it has read before."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.processes = [Store(client, Settings(shards=4)) for _ in range(2)]
        for process in self.processes:
            process.journals = Journals(1024 * 1024, least_fields=1)
        self.store = self.processes[0]
        #: How many values of the journal each reader was given.
        self.read: list[int] = []
        for process in self.processes:
            self._listen(process)

    def _listen(self, process: Store) -> None:
        call = process._call

        def heard(name: str, *args: Any, **more: Any) -> Any:
            answer = call(name, *args, **more)
            if name == "read" or (name == "finish" and len(answer) > 4):
                self.read.append(len(answer[2 if name == "read" else 4]))
            return answer

        process._call = heard  # type: ignore[method-assign]

    def take_over(self, by: int) -> None:
        self.store = self.processes[by]

    @property
    def seen(self) -> str:
        return self.field("seen") or ""

    def there(self) -> dict[str, str]:
        found: dict[str, str] = self.redis.hgetall(self.keys.journal(self.id))
        return found

    def end(self, n: int, *parts: tuple[str, str], policy: str = "all", reads: bool = True, **more: Any) -> Any:
        """Open await `n`, and let its parts end: kind and outcome of each. Gives what the turn goes by."""
        assert self.open(*[part() for _ in parts], policy=policy, n=n, seen=self.seen, **more) == "opened"
        record = None
        for p, (kind, outcome) in enumerate(parts):
            token = f"t{n}.{p}"
            assert self.begin(p, token, n=n) == "granted"
            record = self.finish(kind, p, token, n=n, outcome=outcome, gives="all" if reads else "").record or record
        return record


@pytest.fixture
def run(redis_client: Any) -> Workers:
    made = Workers(redis_client)
    made.submit()
    return made


GOOD, BAD = ("done", "v1"), ("failed", 'e{"step":"s","error_type":"ValueError","message":"no","code":500}')


def of_finish(run: Workers, n: int) -> Any:
    """The turn is taken by whoever has ended the step."""
    return run.end(n, GOOD)


def of_a_message(run: Workers, n: int) -> Any:
    """The turn begins as a message."""
    run.end(n, GOOD, reads=False)
    return run.store.load_to_go_on(run.id)


WAYS = pytest.mark.parametrize("way", [of_finish, of_a_message])


@pytest.mark.parametrize("seed", range(5))
def test_whoever_takes_the_next_turn_reads_all_there_is(run: Workers, seed: int) -> None:
    random = Random(seed)
    kinds: list[Callable[[int], Any]] = [
        lambda n: run.end(n, GOOD),
        lambda n: run.end(n, BAD, GOOD, BAD, policy="settle"),
        lambda n: run.end(n, GOOD, BAD, GOOD, policy="quorum", need=2),
        lambda n: run.end(n, BAD, BAD, GOOD, policy="first"),
    ]
    for n in range(25):
        run.take_over(random.randrange(2))
        record = random.choice(kinds)(n)
        if random.random() < 0.5:
            record = run.store.load_to_go_on(run.id, lease=record.lease.token)

        assert record.journal == run.there()
        assert record.fields == run.redis.hgetall(run.keys.run(run.id))


@WAYS
def test_the_last_turn_reads_no_more_than_the_first(run: Workers, way: Any) -> None:
    for n in range(60):
        way(run, n)

    # The entry of one await and the outcome of its part, as a flat list; the first was read whole.
    assert run.read[-58:] == [4] * 58


@WAYS
def test_who_comes_late_reads_what_came_since(run: Workers, way: Any) -> None:
    way(run, 0)
    run.take_over(1)
    for n in range(1, 4):
        way(run, n)
    run.take_over(0)

    record = way(run, 4)

    assert record.journal == run.there()
    assert run.read[-1] == 4 * 4


def failed_and_retried(run: Workers, n: int) -> None:
    run.store.complete(run.id, seen=run.seen, token="end", state="failed", result="", error="{}", news=News())  # noqa: S106
    run.store.retry(run.id, n, finished_ms=run.field("finished_ms") or "", token="again")  # noqa: S106


@WAYS
def test_after_a_retry_what_is_forgotten_is_not_read(run: Workers, way: Any) -> None:
    for by in (0, 1):
        run.take_over(by)
        for n in range(2 * by, 2 * by + 2):
            way(run, n)
    run.end(4, GOOD, BAD, GOOD, policy="settle")
    way(run, 5)
    failed_and_retried(run, 4)

    for by in (0, 1):
        run.take_over(by)
        assert run.store.load_to_go_on(run.id).journal == run.there()
    assert "4" not in run.there()
    run.open(part(), part(), part(), n=4, seen=run.seen, nonce="again", policy="settle")
    run.take_over(0)
    run.begin(1, "t", n=4, nonce="again")
    record = run.finish("done", 1, "t", n=4, nonce="again", gives="all").record
    assert record is not None
    assert record.journal == run.there()
    assert {"4", "4.0", "4.1", "4.2"} < record.journal.keys()


def test_what_a_redis_has_lost_and_decided_otherwise_is_read_anew(run: Workers) -> None:
    run.end(0, GOOD)
    run.open(part(), part(), n=1, seen=run.seen, policy="settle")
    run.begin(0, "a", n=1)
    run.begin(1, "b", n=1)
    before = run.saved()
    run.finish("done", 0, "a", n=1, outcome="v1")
    run.finish("done", 1, "b", n=1, gives="all")
    run.restored(before)
    run.finish("done", 0, "a", n=1, outcome="v2")

    record = run.finish("done", 1, "b", n=1, gives="all").record

    assert record is not None
    assert record.journal == run.there()
    assert record.journal["1.0"] == "v2"


def test_a_round_that_a_redis_has_lost_leaves_nothing_behind(run: Workers) -> None:
    """Of a former round what has claims left stays in the journal: a part of it is no beginning of it."""
    run.end(0, GOOD)
    run.open(part(), part(), n=1, seen=run.seen, policy="first")
    run.begin(0, "a", n=1)
    run.begin(1, "b", n=1)
    run.finish("done", 0, "a", n=1)
    before = run.saved()
    run.store.restart(
        run.id,
        seen=run.seen,
        token="r",  # noqa: S106
        input_json="[[],{}]",
        first=2,
        entered=0,
        carried='["",0,{}]',
        news=News(),
    )
    left = run.store.load_to_go_on(run.id)
    assert left is not None
    assert left.journal.keys() == {"1", "1.0"}

    run.restored(before)

    record = run.store.load_to_go_on(run.id)
    assert record is not None
    assert record.journal == run.there()
    assert "0" in record.journal


def test_what_an_open_await_has_so_far_is_not_kept(run: Workers) -> None:
    run.end(0, GOOD)
    run.open(part(), part(), n=1, seen=run.seen, policy="settle")
    run.begin(0, "a", n=1)
    run.finish("done", 0, "a", n=1)

    run.take_over(1)
    run.store.load_to_go_on(run.id)

    kept = run.store.journals.get(run.id)
    assert kept is not None
    assert kept.keys() == {"0", "0.0"}


def test_an_entry_of_a_version_that_did_not_say_its_size_is_read_with_all_others(run: Workers) -> None:
    run.end(0, GOOD)
    run.take_over(1)
    run.end(1, GOOD, GOOD)
    entry = json.loads(run.there()["1"])
    del entry["s"]
    run.redis.hset(run.keys.journal(run.id), "1", json.dumps(entry))
    run.take_over(0)

    record = run.store.load_to_go_on(run.id, lease="t1.1")

    assert record is not None
    assert record.journal == run.there()


def test_a_run_that_has_ended_is_kept_no_longer(run: Workers) -> None:
    run.end(0, GOOD)
    assert run.store.journals.get(run.id) is not None

    run.store.complete(run.id, seen=run.seen, token="end", state="completed", result="1", error="", news=News())  # noqa: S106

    assert run.store.journals.get(run.id) is None
    assert run.store.journals.weight == 0
