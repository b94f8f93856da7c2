"""The transport: our messages several at a time, everybody else's as kombu takes them."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Iterator
from time import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue

from canvas import in_hand
from canvas.prefetch import Prefetch
from canvas.transport import BEHIND_MS, MARK, TURN, Transport
from waiting import wait_until

QUEUE = "q"
LONG_AGO_MS = 60_000


@pytest.fixture
def connection(redis_url: str) -> Iterator[Connection]:
    with Connection(redis_url, transport=Transport) as opened:
        yield opened


class Hand:
    """A consumer that takes what it may, acks when told to, and remembers the order."""

    def __init__(self, connection: Connection, prefetch: int, processes: int = 0, queues: tuple[str, ...] = (QUEUE,)):
        self.connection = connection
        self.channel: Any = connection.channel()
        self.channel.processes = processes
        self.bodies: list[Any] = []
        self.messages: list[Any] = []
        self.explodes_at: Any = None
        consumer = Consumer(self.channel, [Queue(name) for name in queues], callbacks=[self._take])
        consumer.qos(prefetch_count=prefetch)
        consumer.consume()

    def _take(self, body: Any, message: Any) -> None:
        if body == self.explodes_at:
            self.explodes_at = None
            raise SystemExit
        self.bodies.append(body)
        self.messages.append(message)

    def drain(self) -> None:
        """Take until nothing comes."""
        while True:
            try:
                self.connection.drain_events(timeout=0.3)
            except TimeoutError:
                return

    def ack_all(self) -> None:
        for message in self.messages:
            message.ack()
        self.messages.clear()


def put(
    connection: Connection, bodies: list[Any], *, ours: bool, queue: str = QUEUE, priority: int = 0, turns: bool = False
) -> None:
    headers = {MARK: int(time() * 1000) - LONG_AGO_MS} if ours else {}
    headers |= {TURN: 1} if turns else {}
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key=queue, headers=headers, declare=[Queue(queue)], priority=priority)


def commands(client: redis.Redis, name: str) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])


def test_behind_a_backlog_our_messages_are_taken_together(connection: Connection, redis_client: redis.Redis) -> None:
    put(connection, list(range(40)), ours=True)
    redis_client.config_resetstat()
    hand = Hand(connection, prefetch=8)
    while len(hand.bodies) < 40:
        hand.drain()
        hand.ack_all()
    assert hand.bodies == list(range(40))
    trips = commands(redis_client, "brpop") + commands(redis_client, "eval")
    assert trips <= 12, f"{trips} fetches for 40 messages"


def test_others_messages_come_one_by_one_each_with_its_note(connection: Connection, redis_client: redis.Redis) -> None:
    put(connection, ["ours 1", "ours 2"], ours=True)
    put(connection, ["other 1", "other 2"], ours=False)
    put(connection, ["ours 3"], ours=True)
    redis_client.config_resetstat()
    hand = Hand(connection, prefetch=10)
    hand.drain()
    assert hand.bodies == ["ours 1", "ours 2", "other 1", "other 2", "ours 3"]
    notes = [json.loads(note)[0]["headers"] for note in redis_client.hvals("unacked")]
    assert len(notes) == 2, "each of theirs, none of ours"
    assert all(MARK not in headers for headers in notes)
    assert commands(redis_client, "brpop") >= 3, "first of all, and for each of theirs"


def test_no_more_is_taken_than_may_be_in_hand(connection: Connection, redis_client: redis.Redis) -> None:
    put(connection, list(range(30)), ours=True)
    hand = Hand(connection, prefetch=5)
    hand.drain()
    assert len(hand.bodies) == 5
    assert redis_client.llen(QUEUE) == 25


def test_more_is_fetched_while_one_is_in_hand_for_each_process(connection: Connection) -> None:
    put(connection, list(range(30)), ours=True)
    hand = Hand(connection, prefetch=8, processes=2)
    hand.drain()
    assert hand.channel.fetch_from() == 4
    for message in hand.messages[:3]:
        message.ack()
    hand.drain()
    assert len(hand.bodies) == 8, "five are in hand, two of them run: no need to hurry"
    hand.messages[3].ack()
    hand.drain()
    assert len(hand.bodies) == 12


def test_with_a_prefetch_of_one_a_process_each_free_one_is_filled_at_once(connection: Connection) -> None:
    put(connection, list(range(30)), ours=True)
    hand = Hand(connection, prefetch=4, processes=4)
    hand.drain()
    hand.messages[0].ack()
    hand.drain()
    assert len(hand.bodies) == 5


def test_a_worker_that_may_not_prefetch_holds_what_it_runs_and_no_more(
    connection: Connection, redis_client: redis.Redis
) -> None:
    put(connection, list(range(30)), ours=True)
    hand = Hand(connection, prefetch=8)
    conf = SimpleNamespace(worker_disable_prefetch=True)
    pool, state = SimpleNamespace(num_processes=2), SimpleNamespace(max_concurrency=None)
    worker: Any = SimpleNamespace(
        app=SimpleNamespace(conf=conf), pool=pool, controller=state, task_consumer=hand, connection=connection
    )
    Prefetch(worker).start(worker)
    qos = hand.channel.qos
    may = qos.can_consume
    qos.can_consume = lambda: len(hand.messages) < 2 and may()  # as Celery's own does
    hand.drain()
    assert hand.bodies == [0, 1]
    hand.messages.pop(0).ack()
    hand.drain()
    assert hand.bodies == [0, 1, 2]
    assert redis_client.llen(QUEUE) == 27


def test_priorities_and_queues_keep_their_order(connection: Connection) -> None:
    put(connection, ["late"] * 3, ours=True, priority=9)
    put(connection, ["soon"] * 3, ours=True, priority=0)
    put(connection, ["other queue"] * 3, ours=True, queue="q2")
    hand = Hand(connection, prefetch=4, queues=(QUEUE, "q2"))
    hand.drain()
    while len(hand.bodies) < 9:
        hand.ack_all()
        hand.drain()
    assert hand.bodies[-3:] == ["late"] * 3, "lower numbers first, of all queues"


def test_what_was_taken_and_not_delivered_goes_back_in_its_order(
    connection: Connection, redis_client: redis.Redis, redis_url: str
) -> None:
    put(connection, list(range(10)), ours=True)
    hand = Hand(connection, prefetch=8)
    hand.explodes_at = 3
    with pytest.raises(SystemExit):  # as a worker's warm stop is
        hand.drain()
    assert hand.bodies == [0, 1, 2]
    assert redis_client.llen(QUEUE) == 6, "all but the three and the one that was being delivered"
    with Connection(redis_url) as stock:
        assert [stock.SimpleQueue(QUEUE).get(timeout=1).payload for _ in range(6)] == [4, 5, 6, 7, 8, 9]


def test_an_idle_queue_is_waited_for(connection: Connection, redis_client: redis.Redis) -> None:
    put(connection, list(range(3)), ours=True)
    hand = Hand(connection, prefetch=8)
    hand.drain()
    assert not hand.channel.is_behind, "it has seen the end of the backlog"
    redis_client.config_resetstat()
    hand.drain()
    assert commands(redis_client, "eval") == 0
    wait_until(lambda: _blocked(redis_client) == 1, "BRPOP waits at the server")


def test_a_fresh_message_is_no_backlog(connection: Connection) -> None:
    hand = Hand(connection, prefetch=8)
    headers = {MARK: int(time() * 1000) + BEHIND_MS}
    with connection.Producer() as producer:
        producer.publish("now", routing_key=QUEUE, headers=headers, declare=[Queue(QUEUE)])
    hand.drain()
    assert hand.bodies == ["now"]
    assert not hand.channel.is_behind


def _blocked(client: redis.Redis) -> int:
    clients: Any = client.info("clients")
    return int(clients["blocked_clients"])


# --- turns that a pool process takes itself --------------------------------------------


@pytest.fixture(autouse=True)
def _empty_hand() -> Iterator[None]:
    in_hand.starts()
    yield
    in_hand.starts()


def taken(connection: Connection, at_most: int = 4, others: tuple[str, ...] = ()) -> list[Any]:
    channel: Any = connection.default_channel
    _, texts = channel.take_turns(QUEUE, others, at_most)
    messages = [json.loads(text) for text in texts]
    bodies = [b64decode(message["body"]).decode() for message in messages]
    return [int(body) if body.isdigit() else body for body in bodies]


def test_turns_are_taken_oldest_first_and_never_more_than_half(connection: Connection) -> None:
    put(connection, list(range(10)), ours=True, turns=True)

    assert [taken(connection) for _ in range(6)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8], [9], [], []]


def test_what_is_no_turn_is_left_to_the_worker_and_so_is_what_comes_after_it(connection: Connection) -> None:
    put(connection, ["turn"], ours=True, turns=True)
    put(connection, ["step"], ours=True)
    put(connection, ["turn"] * 6, ours=True, turns=True)
    put(connection, ["first turn"], ours=True, turns=True, priority=9)

    assert taken(connection) == ["turn"]
    assert taken(connection) == []


def test_no_header_of_a_users_own_text_makes_a_turn(connection: Connection) -> None:
    text = f'"{TURN}":1'
    with connection.Producer() as producer:
        producer.publish(text, routing_key=QUEUE, headers={"argsrepr": text, text: text}, declare=[Queue(QUEUE)])

    assert taken(connection) == []


def test_while_another_queue_has_a_message_no_turn_is_taken(connection: Connection) -> None:
    put(connection, ["turn"], ours=True, turns=True)
    put(connection, ["mail"], ours=False, queue="mail", priority=6)

    assert taken(connection, others=("mail",)) == []
    assert taken(connection, others=("else",)) == ["turn"]


def test_turns_that_are_put_back_are_where_they_were(connection: Connection) -> None:
    put(connection, list(range(8)), ours=True, turns=True)
    channel: Any = connection.default_channel
    name, texts = channel.take_turns(QUEUE, (), 4)

    channel.put_back(name, texts[1:])

    assert taken(connection, 100) == [1, 2, 3, 4]


def test_the_pool_knows_while_its_worker_has_anything_but_turns_in_hand(connection: Connection) -> None:
    put(connection, ["turn"], ours=True, turns=True)
    hand, another = Hand(connection, prefetch=8), Hand(connection, prefetch=8, queues=("another",))
    hand.channel.in_hand_of = os.getpid()  # as `canvas.prefetch` has it
    hand.drain()
    assert in_hand.only_turns()

    put(connection, ["step", "mail", "late mail"], ours=True)
    put(connection, ["mail"], ours=False)
    hand.drain()
    put(connection, ["for somebody else"], ours=False, queue="another")
    another.drain()
    another.ack_all()
    for message in hand.messages[1:]:
        assert not in_hand.only_turns(), "whatever other channels have"
        message.reject() if message is hand.messages[2] else message.ack()

    assert in_hand.only_turns()
    in_hand.limits(some=True)
    assert not in_hand.only_turns()
    in_hand.limits(some=False)
    in_hand.stops()
    assert not in_hand.only_turns()
