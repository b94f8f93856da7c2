"""Kombu's Redis transport, with less work for each message. On the wire it is the same.

Five things differ:

- Where a queue has a backlog, celeriac's messages are taken several at a time, and fetched when several can be
  taken. Others come one by one, as kombu takes them.
- Sockets are made known to the event loop when they are new, not at each of its rounds.
- One Redis client is kept for a channel. Kombu makes a new one, about 120 µs, for each append and each ack.
- The broker takes no note of a message of celeriac's that a worker has in hand. Kombu writes it to `unacked`
  and erases it again, two transactions a message, so that it comes back if the worker dies. A step that is lost
  with its worker is known to the store: it is due, and the sweep sends it again. Other messages on the same
  queues keep their notes.
- `Producer.batch()` writes its messages straight to a connection, without a pipeline object and its retries.

A worker's parent tells its pool processes whether it has anything in hand but turns; see `canvas.next_turns`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from importlib.resources import files
from queue import Empty
from time import monotonic, time
from typing import Any, cast

from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import RedisError

from canvas import in_hand
from canvas.transport_batch import Batch
from status.advice import advice

logger = logging.getLogger("celeriac")

#: The header that marks a message as one the store knows of.
MARK = "celeriac_published_ms"

#: The header of a turn that was never sent before.
TURN = "celeriac_turn"

#: A message that is older than this when it comes has waited behind others.
BEHIND_MS = 5

#: Messages in one fetch.
FETCH_AT_MOST = 16

#: Sent as text each time: 500 bytes on loopback cost less than a round trip to load it anew after a failover.
TAKE, TAKE_TURNS = (
    re.sub(r"^ *--.*\n", "", (files("canvas") / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name in ("take.lua", "take_turns.lua")
)


class QoS(redis.QoS):
    """Counts what is in hand, as prefetch limits want it; notes in Redis only what nobody else knows of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: set[str] = set()
        self._others: set[str] = set()

    @property
    def free(self) -> int:
        """How many more messages may be in hand."""
        if not self.prefetch_count:
            return FETCH_AT_MOST
        return self.prefetch_count - (len(cast("Any", self._delivered)) - len(cast("Any", self._dirty)))

    def can_consume(self) -> bool:
        """Whether to fetch; behind a backlog, only when that is worth a round trip."""
        channel = cast("Any", self.channel)
        return self.free >= (channel.fetch_from() if channel.is_behind else 1)

    def append(self, message: Any, delivery_tag: str) -> None:
        """A message has come."""
        headers = message.headers or {}
        if TURN not in headers:
            self._others.add(delivery_tag)
            self._tell()
        sent_ms = headers.get(MARK)
        if sent_ms is not None:
            if time() * 1000 - sent_ms > BEHIND_MS:
                cast("Any", self.channel).is_behind = True
            self._known.add(delivery_tag)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """A message is done with."""
        self._put_down(delivery_tag)
        if delivery_tag in self._known:
            self._known.discard(delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """A message goes back, or nowhere."""
        if delivery_tag in self._known:
            if requeue:
                try:
                    self.restore_by_tag(delivery_tag, leftmost=True)
                except RedisError as error:
                    # Not raised: a refusal (out of memory) would end the worker. The store knows of this message.
                    logger.warning("a message could not go back, the sweep will send it again: %s", advice(error))
            self.ack(delivery_tag)
        else:
            self._put_down(delivery_tag)
            super().reject(delivery_tag, requeue)

    def _put_down(self, delivery_tag: str) -> None:
        if delivery_tag in self._others:
            self._others.discard(delivery_tag)
            self._tell()

    def _tell(self) -> None:
        if cast("Any", self.channel).in_hand_of == os.getpid():
            in_hand.tell(len(self._others))

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back on its queue: a worker that stops gives back what it has not begun."""
        if tag not in self._known:
            super().restore_by_tag(tag, client, leftmost)
            return
        message = cast("Any", self._delivered)[tag]
        info = message.delivery_info
        channel: Any = self.channel
        raw = message._raw  # noqa: SLF001  # as kombu's own QoS does
        with channel.conn_or_acquire(client) as redis_client, redis_client.pipeline() as pipe:
            channel._do_restore_message(raw, info["exchange"], info["routing_key"], pipe, leftmost)  # noqa: SLF001
            pipe.execute()


# Typed as Any: the stubs leave out what is overridden here.
_Channel: Any = redis.Channel


class Channel(_Channel):  # type: ignore[misc]
    """Keeps its client, and takes several messages at a time where there are several."""

    QoS = QoS
    _kept: Any = None
    _for_batches: tuple[int, Any] | None = None

    #: The process that is a worker's parent and takes its messages from this channel.
    in_hand_of: int | None = None
    #: Whether the queues had messages waiting when they were last looked at.
    is_behind = False
    #: How many steps the worker runs at once; 0: not known (see `canvas.prefetch`).
    processes = 0
    #: The worker holds nothing that it can't run at once (`worker_disable_prefetch`), so no more than one is fetched.
    one_by_one = False
    _takes = False

    def fetch_from(self) -> int:
        """How many messages must be wanted for a fetch behind a backlog: one more stays in hand for each process."""
        if self.one_by_one or not self.processes:
            return 1
        spare: int = self.qos.prefetch_count - 2 * self.processes
        return min(max(1, spare), FETCH_AT_MOST)

    def _brpop_start(self, timeout: float | None = None) -> None:
        self._takes = self.is_behind and not self.one_by_one and not self.global_keyprefix
        if not self._takes:
            super()._brpop_start(timeout)
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self._in_poll.send_command("EVAL", TAKE, len(lists), *lists, min(self.qos.free, FETCH_AT_MOST))

    def _brpop_read(self, **options: Any) -> Any:
        if not self._takes:
            return super()._brpop_read(**options)
        try:
            try:
                taken = self.client.parse_response(self.client.connection, "EVAL", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not taken:
                self.is_behind = False
                raise Empty
            self._deliver_all(*taken)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _deliver_all(self, name: Any, *taken: Any) -> None:
        queue = bytes_to_str(name).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        left = list(taken)
        try:
            while left:
                self.connection._deliver(loads(bytes_to_str(left.pop(0))), queue)  # noqa: SLF001  # as kombu's own does
        finally:
            if left:  # the worker stops, or its connection broke
                self._give_back(name, left)

    def _give_back(self, name: Any, texts: list[Any]) -> None:
        try:
            self._create_client().rpush(name, *reversed(texts))
        except self.connection_errors as error:
            logger.warning("%d message(s) not put back, the sweep will send them again: %s", len(texts), error)

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        # Its pool hands each command a connection of its own, so that it may be shared.
        if self._kept is None:
            self._kept = super()._create_client()
        return self._kept

    def batch_connection(self) -> Any:
        """The connection that this channel's batches are sent over, one at a time."""
        if self._for_batches is None or self._for_batches[0] != os.getpid():
            self._for_batches = os.getpid(), self.pool.make_connection()
        return self._for_batches[1]

    def take_turns(self, queue: str, others: Iterable[str], at_most: int) -> tuple[Any, list[Any]]:
        """Take the next messages of a queue, if they are turns and nothing waits in the others.

        Returns:
            The list they were in, and the messages as they were there, the oldest first.

        Raises:
            RedisError: Redis does not answer; what was taken is lost, and the sweep sends it again.
        """
        own, *more = ([self._q_for_pri(name, step) for step in self.priority_steps] for name in (queue, *others))
        lists = [*own, *(one for each in more for one in each)]
        command = ("EVAL", TAKE_TURNS, len(lists), *lists, len(own), at_most)
        try:
            found = self._over_batches(*command)
        except self.connection_errors:
            found = self._over_batches(*command)  # it was kept open and has been cut meanwhile
        name, *texts = found or [""]
        return name, texts

    def put_back(self, name: Any, texts: list[Any]) -> None:
        """Put messages back where `take_turns` found them.

        Raises:
            RedisError: Redis does not answer; they are lost, and the sweep sends them again.
        """
        self._over_batches("RPUSH", name, *reversed(texts))

    def _over_batches(self, *command: Any) -> Any:
        connection = self.batch_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        except BaseException:
            connection.disconnect()  # its answer may be on its way
            raise

    def close(self) -> None:
        """Close the connections that were kept, too."""
        if self._for_batches is not None and self._for_batches[0] == os.getpid():
            self._for_batches[1].disconnect()
        super().close()

    def create_publish_batch(self, max_size: int) -> Any:
        """For `Producer.batch()`."""
        if self.global_keyprefix:  # it is kombu's client that puts it before each key
            return super().create_publish_batch(max_size)
        return Batch(self, max_size)


def puts(channel: Any) -> bool:
    """Whether a channel makes a `Batch`, into which messages can be put."""
    return isinstance(channel, Channel) and not channel.global_keyprefix


class Transport(redis.Transport):
    """Set `broker_transport = "canvas.transport:Transport"`; `canvas.install` does."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """As kombu does, with less to do at each round of the loop."""
        super().register_with_event_loop(connection, _Registered(loop))


class _Registered:
    """An event loop to which nothing is said twice.

    Kombu adds the reader of each of its sockets at each round, two system calls a socket.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def add_reader(self, fd: int, callback: Any, *args: Any) -> None:
        """Have `callback` called when there is something to read."""
        if self._loop.readers.get(fd) != (callback, args):
            self._loop.add_reader(fd, callback, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)
