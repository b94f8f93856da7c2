"""Kombu's Redis transport, with less work for each message. On the wire it is the same.

Three things differ:

- One Redis client is kept for a channel. Kombu makes a new one, about 120 µs, for each append and each ack.
- The broker takes no note of a message of celeriac's that a worker has in hand. Kombu writes it to `unacked`
  and erases it again, two transactions a message, so that it comes back if the worker dies. A step that is lost
  with its worker is known to the store: it is due, and the sweep sends it again. Other messages on the same
  queues keep their notes.
- `Producer.batch()` writes its messages straight to a connection, without a pipeline object and its retries.
"""

from __future__ import annotations

import json
import os
from typing import Any, cast
from uuid import uuid4

from hiredis import pack_command
from kombu.exceptions import OperationalError
from kombu.transport import redis, virtual

#: The header that marks a message as one the store knows of.
MARK = "celeriac_published_ms"


class QoS(redis.QoS):
    """Counts what is in hand, as prefetch limits want it; notes in Redis only what nobody else knows of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: set[str] = set()

    def append(self, message: Any, delivery_tag: str) -> None:
        """A message has come."""
        if MARK in (message.headers or ()):
            self._known.add(delivery_tag)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """A message is done with."""
        if delivery_tag in self._known:
            self._known.discard(delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """A message goes back, or nowhere."""
        if delivery_tag in self._known:
            if requeue:
                self.restore_by_tag(delivery_tag, leftmost=True)
            self.ack(delivery_tag)
        else:
            super().reject(delivery_tag, requeue)

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


class Batch(redis.PublishBatch):  # type: ignore[misc, name-defined]  # missing in the stubs
    """What `Producer.batch()` collects: one LPUSH a queue, sent and answered together."""

    def __init__(self, channel: Any, max_size: int) -> None:
        self.channel = channel
        self.max_size = max_size
        self._lists: dict[str, list[str]] = {}
        self._others: list[tuple[Any, ...]] = []
        self._size = 0

    def publish(self, message: dict[str, Any], **kwargs: Any) -> Any:
        """Keep one message until the batch is flushed."""
        return self.channel.basic_publish(message, _publish_batch=self, **kwargs)

    def put(self, queue: str, headers: dict[str, Any], body: str, properties: dict[str, Any]) -> None:
        """Keep a message for the default exchange, put together here: what `Producer.publish` would make of it.

        Args:
            body: JSON.
            properties: `correlation_id`, `reply_to` and perhaps `priority`.
        """
        channel = self.channel
        text, encoding = channel.encode_body(body, channel.body_encoding)
        own = {
            "delivery_mode": 1,  # which Redis does not ask for
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": channel.default_priority,
            "body_encoding": encoding,
            "delivery_tag": uuid4().hex,
            **properties,
        }
        message = {
            "body": text,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": own,
        }
        key = channel._q_for_pri(queue, channel._get_message_priority(message))  # noqa: SLF001  # our own base's
        self.add("lpush", key, json.dumps(message, separators=(",", ":")))

    def add(self, name: str, *args: Any) -> None:
        """Keep one command; the channel calls it."""
        if name == "lpush":
            self._lists.setdefault(args[0], []).extend(args[1:])
        else:
            self._others.append((name.upper(), *args))
        self._size += 1
        if self._size >= self.max_size:
            self.flush()

    def flush(self) -> None:
        """Send what was kept. Not tried again: half of it may have arrived.

        Raises:
            OperationalError: Of kombu: the connection broke, or Redis refused a message.
        """
        # The first of a list is at its right end, where it is taken from first: as if pushed one by one.
        commands = [*(("LPUSH", key, *texts) for key, texts in self._lists.items()), *self._others]
        sent = self._size
        self.discard()
        if not commands:
            return
        connection = self.channel.batch_connection()
        try:
            connection.send_packed_command([pack_command(command) for command in commands])
            for _ in commands:
                connection.read_response()
        except BaseException as error:
            connection.disconnect()  # its other answers are still on their way
            if isinstance(error, Exception):
                raise OperationalError(f"{sent} message(s) may not have been sent: {error}") from error
            raise

    def discard(self) -> None:
        """Drop what was not sent."""
        self._lists, self._others, self._size = {}, [], 0

    def close(self) -> None:
        """Nothing is held open."""


# Typed as Any: the stubs leave out what is overridden here.
_Channel: Any = redis.Channel


class Channel(_Channel):  # type: ignore[misc]
    """Keeps its client."""

    QoS = QoS
    _kept: Any = None
    _for_batches: tuple[int, Any] | None = None

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
