"""Parents and children on a real Redis: broker, workers and sweep are played, step by step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import redis
from celery import Celery

from canvas.engine import Engine
from canvas.outcomes import describe, encode_error
from canvas.pulse import Sweeper
from canvas.turn import take_turn
from status.models import RunStatus, error_from_json
from status.reading import Reader
from status.records import PartRef, Timer
from status.settings import Settings
from status.store import Store


class Family:
    """Runs that wait for each other.

    Attributes:
        inbox: What lies on the broker: run ids for turns; parts with their specs.
        held: Steps (by label) that a worker has begun and does not end.
        dead: Each transition by this name raises, as if the process had died before it.
    """

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        self.app, self.redis = app, client
        self.store = Store(client, Settings(shards=4))
        self.reader = Reader(client, self.store.keys)
        self.engine = Engine(app, self.store)
        self.engine.publisher = self  # type: ignore[assignment]
        self.sweeper = Sweeper(self.engine, "family")
        self.sweeper.backlog = self  # type: ignore[assignment]
        self.inbox: list[str | tuple[PartRef, dict[str, Any]]] = []
        self.held: dict[str, tuple[PartRef, dict[str, Any]]] = {}
        self.hold: set[str] = set()
        self._tokens = count()

    # --- as the engine sees it ------------------------------------------------------

    def steps(self, messages: Any, _workflow: str) -> None:
        self.inbox += list(messages)

    def turn(self, run_id: str, *_: Any, **__: Any) -> None:
        self.inbox.append(run_id)

    def is_lost(self, *_: Any) -> bool:
        return True

    # --- doing ----------------------------------------------------------------------

    def submit(self, flow: Any, *args: Any, run_id: str = "top", timeout_ms: int = 0) -> None:
        text = flow.write_input(args, {})
        self.store.submit(run_id, workflow=flow.name, input_json=text, digest=text, token=run_id, timeout_ms=timeout_ms)
        self.inbox.append(run_id)
        self.play()

    def play(self) -> Family:
        """Deliver all messages until none is left."""
        while self.inbox:
            message = self.inbox.pop(0)
            if isinstance(message, str):
                take_turn(self.engine, message)
            else:
                self._perform(*message)
        return self

    def _perform(self, ref: PartRef, spec: dict[str, Any]) -> None:
        token = f"t{next(self._tokens)}"
        if not self.store.begin(ref, token=token, where="w1").granted:
            return
        if spec["label"] in self.hold:
            self.held[spec["label"]] = (ref, {**spec, "token": token})
        else:
            self._end(ref, spec, token)

    def let_go(self, label: str) -> Family:
        """The step that is held ends now."""
        ref, spec = self.held.pop(label)
        self._end(ref, spec, spec["token"])
        return self.play()

    def _end(self, ref: PartRef, spec: dict[str, Any], token: str) -> None:
        step = self.app.tasks[spec["task"]]
        kind: Any = "done"
        try:
            args, kwargs = step.codec.decode(spec.get("args", []), spec.get("kwargs", {}))
            outcome = "v" + step.codec.result.dumps(step.run(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # whatever it raised is its outcome
            kind, outcome = "failed", encode_error(describe(error, step=spec["label"]))
        ending = self.store.finish(ref, token=token, kind=kind, outcome=outcome, began_ms=1, name=spec["label"])
        if self.engine.go_on(ref.run_id, ending):
            self.inbox.append(ref.run_id)

    def sweep(self, rounds: int = 3) -> Family:
        """Let time go by on all shards, repair what is due, and deliver what that sends."""
        for _ in range(rounds):
            for shard in range(self.store.keys.shards):
                for ref, spec in self.held.values():
                    self.store.vouch(ref.run_id, [(ref.n, ref.p, spec["token"])])
                self.redis.incrby(self.store.keys.tick(shard), 4)
                for ref, spec in self.held.values():
                    self.store.vouch(ref.run_id, [(ref.n, ref.p, spec["token"])])
                tick = int(self.redis.get(self.store.keys.tick(shard)) or 0)
                for member in self.redis.zrangebyscore(self.store.keys.due(shard), "-inf", f"({tick}"):
                    run_id, _, place = member.partition("/")
                    n, _, p = place.partition(".")
                    self.sweeper.repair(run_id, n, p)
            self.play()
        return self

    def fire(self, kind: str) -> Family:
        """Let all timers of a kind be due, and fire them."""
        for shard in range(self.store.keys.shards):
            key = self.store.keys.timers(shard)
            for member in self.redis.zrange(key, 0, -1):
                if member.startswith(f"{kind}|"):
                    self.redis.zadd(key, {member: 1})
                    self.sweeper.fire(Timer.parse(member))
        return self.play()

    def cancel(self, run_id: str = "top") -> Family:
        self.engine.cancel(run_id, "enough")
        return self.play()

    def crash(self, monkeypatch: Any, method: str, *, after: bool = False) -> None:
        """Let the process die before (or after) the store's method, once."""
        original: Callable[..., Any] = getattr(self.store, method)

        def die(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(self.store, method, original)
            if after:
                original(*args, **kwargs)
            raise Died(method)

        monkeypatch.setattr(self.store, method, die)

    # --- looking --------------------------------------------------------------------

    def status(self, run_id: str = "top") -> RunStatus:
        return self.reader.status(run_id)

    def state(self, run_id: str = "top") -> str:
        return str(self.redis.hget(self.store.keys.run(run_id), "state") or "")

    def result(self, run_id: str = "top") -> str:
        return str(self.redis.hget(self.store.keys.run(run_id), "result"))

    def error(self, run_id: str = "top") -> Any:
        return error_from_json(str(self.redis.hget(self.store.keys.run(run_id), "error")))

    def owed(self) -> list[str]:
        """All that is due, on any shard, but what is looked at once an hour."""
        rows = []
        for shard in range(self.store.keys.shards):
            tick = int(self.redis.get(self.store.keys.tick(shard)) or 0)
            rows += self.redis.zrangebyscore(self.store.keys.due(shard), "-inf", tick + 100)
        return sorted(rows)

    def left(self) -> set[str]:
        """What is due or on the timers at all, and joins that are still there."""
        shards = range(self.store.keys.shards)
        rows = {row for shard in shards for row in self.redis.zrange(self.store.keys.due(shard), 0, -1)}
        rows |= {row for shard in shards for row in self.redis.zrange(self.store.keys.timers(shard), 0, -1)}
        return rows | {key for key in self.redis.scan_iter("*") if ":join:" in key and ":input" not in key}


class Died(BaseException):
    """The process is gone."""
