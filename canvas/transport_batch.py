"""What kombu's `Producer.batch()` collects for our transport: straight to a connection, with one answer to wait for."""

from __future__ import annotations

from typing import Any

from hiredis import pack_command
from kombu.exceptions import OperationalError
from kombu.transport import redis
from pydantic_core import to_json

from status.tokens import new_token


class Batch(redis.PublishBatch):  # type: ignore[misc, name-defined]  # missing in the stubs
    """What `Producer.batch()` collects: one LPUSH a queue, sent and answered together."""

    def __init__(self, channel: Any, max_size: int) -> None:
        self.channel = channel
        self.max_size = max_size
        self._lists: dict[str, list[str | bytes]] = {}
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
            "delivery_tag": new_token(),
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
        self.add("lpush", key, to_json(message))

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
