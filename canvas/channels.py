"""Channels: many messages from the outside world to one run."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from canvas.context import refuse_in_workflow
from canvas.outcomes import failure
from canvas.payload import Adapter
from canvas.waitables import Part, checked_s
from status import channels
from status.models import CHANNEL
from status.records import NewPart
from status.states import Answer

T = TypeVar("T")


class Channel(Generic[T]):
    """Many messages to one run, in order, none lost; each is received once.

    Attributes:
        name: What the outside calls it.
    """

    def __init__(self, name: str, type: type[T]) -> None:  # noqa: A002  # as one says it
        self.name = channels.check_name(name)
        self._adapter = Adapter(type, f"channel {name}")

    def __repr__(self) -> str:
        return f"channel({self.name!r})"

    def send(self, run_id: str, value: T) -> Answer:
        """Send a message to one run; also before that run waits for it.

        Messages that are sent one after the other are received so. A step that sends sends again when it is retried.

        Returns:
            `accepted`; `late`: the run has ended; `unknown`: there is no such run.

        Raises:
            PayloadError: The value does not fit the channel's type.
            ConfigError: In a workflow, or the run id is malformed.
            StoreUnavailable: Redis does not answer.
        """
        refuse_in_workflow(f"{self!r}.send(...)", "let a step do it")
        return channels.send(run_id, self.name, self._adapter.dumps(value))

    def receive(self) -> Receive[T]:
        """The next message: a part, to be awaited alone or in any join.

        A message is received by the part that it ends: what loses a race, times out or is cancelled has received none.
        """
        return Receive(self, self._adapter)


class Receive(Part[T], Generic[T]):
    """The next message of a channel; made by `channel.receive()`."""

    state = "suspended"

    def __init__(self, channel: Channel[T], adapter: Adapter, within_s: float | None = None) -> None:
        self._channel, self._adapter, self._within_s = channel, adapter, within_s

    def __repr__(self) -> str:
        return f"{self._channel!r}.receive()"

    def within(self, timeout_s: float) -> Receive[T]:
        """The same with a time limit, from the await; `StepTimeout` if nothing came.

        Raises:
            ConfigError: The time is not more than 0.
        """
        checked_s(f"{self!r}.within", timeout_s, more_than_0=True)
        return Receive(self._channel, self._adapter, timeout_s)

    @property
    def label(self) -> str:
        return self._channel.name

    @property
    def task_name(self) -> str:
        return f"{CHANNEL}{self._channel.name}"

    def prepare(self) -> NewPart:
        within_ms = max(1, round(self._within_s * 1000)) if self._within_s else 0
        return NewPart(kind="receive", queue="", label=self._channel.name, within_ms=within_ms)

    def value(self, outcome: str) -> T:
        return cast("T", self._adapter.loads(outcome))

    def failure(self, outcome: str, index: int) -> Exception:
        return failure(outcome, step=self.label, index=index, within_s=self._within_s)


def channel(name: str, type: type[T]) -> Channel[T]:  # noqa: A002
    """Messages that come from outside, as many as there are.

    Args:
        name: One channel a run and name.
        type: Of its messages, as any annotation of a step; checked when they are sent and when they are received.

    Raises:
        ConfigError: The name is empty, too long, or no text; or the type can't be carried as JSON.
    """
    return Channel(name, type)
