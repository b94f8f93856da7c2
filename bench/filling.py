"""Fills a Valkey with runs, by their own transitions, sent together: to see what a page costs where there are many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis

from status.records import NewPart, News, PartRef
from status.scripts import digest, source
from status.settings import Settings
from status.store import Store

#: Transitions that are sent in one go.
BATCH = 1000

#: What each transition answers; the first is what its caller is told at once.
ANSWERS: dict[str, tuple[list[Any], set[str]]] = {
    "submit": (["created"], {"created"}),
    "open_join": (["opened"], {"opened"}),
    "begin": (["granted", 0, 0], {"granted"}),
    "finish": (["recorded", [], []], {"recorded", "decided"}),
    "complete": (["completed"], {"completed"}),
}

WORKFLOWS = ("orders.complete", "orders.ship", "mail.send", "reports.build")


class Piped:
    """In the place of a store's scripts: keeps the calls, and sees later that each came to what it must."""

    def __init__(self, client: redis.Redis) -> None:
        self._pipe = client.pipeline(transaction=False)
        self._names: list[str] = []

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any], _meanwhile: Any = None) -> list[Any]:
        self._pipe.evalsha(digest(name), len(keys), *keys, *args)
        self._names.append(name)
        if len(self._names) >= BATCH:
            self.send()
        return ANSWERS[name][0]

    def send(self) -> None:
        """Send what is kept.

        Raises:
            RuntimeError: One of them was refused.
        """
        for name, answer in zip(self._names, self._pipe.execute(), strict=True):
            if answer[0] not in ANSWERS[name][1]:
                raise RuntimeError(f"{name} answered {answer[0]!r}: the runs are not as they should be")
        self._names.clear()


class Filler:
    """Makes runs that no worker has seen.

    Args:
        client: Of the Valkey to fill, with decoded answers.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._store = Store(client, Settings())
        self._store.check_layout()
        for name in ANSWERS:
            client.script_load(source(name))
        self._piped = Piped(client)
        self._store._scripts = self._piped  # type: ignore[assignment]  # noqa: SLF001

    def finished(self, number: int) -> None:
        """Runs that have ended, one in twenty badly."""
        error = '{"step":"charge","error_type":"builtins.ValueError","message":"the card was refused","code":402}'
        for n in range(number):
            run_id = f"order-{n:06}"
            self._submit(run_id, WORKFLOWS[n % 3])
            bad = n % 20 == 0
            news = News(status=("ship" if bad else "done", 0.6 if bad else 1.0, "{}"))
            state, text = ("failed", error) if bad else ("completed", "")
            self._store.complete(run_id, seen="", token=run_id, state=state, result='"sent"', error=text, news=news)
        self._piped.send()

    def running(self, number: int) -> None:
        """Runs in the middle of their first await."""
        for n in range(number):
            run_id = f"live-{n:06}"
            self._submit(run_id, WORKFLOWS[n % 3])
            self._open(run_id, 0, [_part("charge")], News(status=("pay", 0.4, "{}")))
            self._store.begin(PartRef(run_id, 0, "0", "n0", 1), token=run_id, where="w", name="charge")
        self._piped.send()

    def wide(self, run_id: str, steps: int) -> None:
        """A run of one await of so many steps, which has ended."""
        self._submit(run_id, WORKFLOWS[3])
        self._open(run_id, 0, [_part(f"resize {n % 7}") for n in range(steps)])
        for p in range(steps):
            self._do(run_id, 0, p)
        self._store.complete(run_id, seen="n0", token=run_id, state="completed", result='"done"')
        self._piped.send()

    def long(self, run_id: str, steps: int) -> None:
        """A run of so many awaits of one step, which has ended."""
        self._submit(run_id, WORKFLOWS[3])
        for n in range(steps):
            self._open(run_id, n, [_part(f"page {n % 7}")])
            self._do(run_id, n, 0)
        self._store.complete(run_id, seen=f"n{steps - 1}", token=run_id, state="completed", result='"done"')
        self._piped.send()

    def _submit(self, run_id: str, workflow: str) -> None:
        self._store.submit(run_id, workflow=workflow, input_json="[[], {}]", digest=run_id, token=run_id)

    def _open(self, run_id: str, n: int, parts: Sequence[NewPart], news: News | None = None) -> None:
        seen = f"n{n - 1}" if n else ""
        self._store.open_join(
            run_id, n, seen=seen, nonce=f"n{n}", fingerprint=f"fan_out({len(parts)})" if len(parts) > 1 else "await(x)",
            policy="settle", parts=parts, news=news,
        )  # fmt: skip

    def _do(self, run_id: str, n: int, p: int) -> None:
        ref, token = PartRef(run_id, n, str(p), f"n{n}", 1), f"{n}.{p}"
        self._store.begin(ref, token=token, where="w", name="x")
        self._store.finish(ref, token=token, kind="done", outcome='v"x"', began_ms=round(time.time() * 1000), name="x")


def _part(label: str) -> NewPart:
    return NewPart("step", "celery", label)
