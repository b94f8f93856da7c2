"""What goes wrong in a world: a profile drawn from its seed, and the dice."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

#: Kinds of fault; a world has some of them, so that none hides behind another.
KINDS = (
    "kill", "kill_at", "lose", "repeat", "late", "reorder", "resend", "preempt", "pause", "cut", "flush",
    "no_publish", "stop", "rollback",
)  # fmt: skip


@dataclass
class Profile:
    """How much of what goes wrong. Rates are for each occasion: a boundary, a message, a call.

    Attributes:
        until_ms: From then on nothing goes wrong any more.
        kill: A process dies at a boundary, before or after its write.
        whole_host: Share of those deaths that take the whole host.
        children_only: Nobody but pool processes dies.
        slow: Share of the bodies that take seconds.
        kill_at: It dies at the boundary with this number.
        preempt: Others go on for a moment while a process is between two writes.
        pause: Its whole host stops there for longer than a lease.
        cuts_ms, stops_ms: (when, how long): a host, or everybody, does not reach Redis; a host stands still.
        flushes_ms: When the broker is emptied.
        rollbacks_ms: (when, how far back): Redis is restarted without its last moments.
    """

    until_ms: int = 0
    kill: float = 0.0
    whole_host: float = 0.3
    slow: float = 0.2
    children_only: bool = False
    kill_at: int = -1
    lose: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    reorder: float = 0.0
    resend: float = 0.0
    preempt: float = 0.0
    pause: float = 0.0
    no_publish: float = 0.0
    cuts_ms: tuple[tuple[int, int], ...] = ()
    stops_ms: tuple[tuple[int, int], ...] = ()
    flushes_ms: tuple[int, ...] = ()
    rollbacks_ms: tuple[tuple[int, int], ...] = ()
    kinds: tuple[str, ...] = field(default=())


def draw(random: Random, kinds: tuple[str, ...] = ()) -> Profile:
    """A random profile.

    Args:
        kinds: These and no others; (): some, at random.
    """
    if not kinds:
        kinds = tuple(kind for kind in KINDS if random.random() < 0.3)
    until_ms = random.choice([3_000, 8_000, 15_000])
    some = lambda most: tuple(random.randint(1, until_ms) for _ in range(random.randint(1, most)))  # noqa: E731
    return Profile(
        until_ms=until_ms,
        kill=random.choice([0.01, 0.04]) if "kill" in kinds else 0.0,
        whole_host=random.choice([0.1, 0.5, 1.0]),
        kill_at=random.randint(0, 60) if "kill_at" in kinds else -1,
        lose=random.choice([0.1, 0.4]) if "lose" in kinds else 0.0,
        repeat=random.choice([0.1, 0.5]) if "repeat" in kinds else 0.0,
        late=random.choice([0.1, 0.5]) if "late" in kinds else 0.0,
        reorder=0.5 if "reorder" in kinds else 0.0,
        resend=random.choice([0.1, 0.5]) if "resend" in kinds else 0.0,
        preempt=random.choice([0.05, 0.3]) if "preempt" in kinds else 0.0,
        pause=0.03 if "pause" in kinds else 0.0,
        no_publish=0.2 if "no_publish" in kinds else 0.0,
        cuts_ms=tuple((at, random.choice([300, 2_000, 9_000])) for at in some(2)) if "cut" in kinds else (),
        stops_ms=tuple((at, random.choice([1_000, 6_000, 12_000])) for at in some(3)) if "stop" in kinds else (),
        flushes_ms=some(2) if "flush" in kinds else (),
        rollbacks_ms=tuple((at, random.randint(1, 1500)) for at in some(2)) if "rollback" in kinds else (),
        kinds=kinds,
    )


class Faults:
    """Throws the dice of a profile.

    Attributes:
        now_ms: The world's clock, set by the world.
    """

    def __init__(self, profile: Profile, random: Random) -> None:
        self.profile = profile
        self.random = random
        self.now_ms = 0
        self.boundaries = 0

    @property
    def on(self) -> bool:
        return self.now_ms < self.profile.until_ms

    def _is(self, rate: float) -> bool:
        return rate > 0 and self.on and self.random.random() < rate

    def kills(self) -> bool:
        """Whether the process at this boundary dies."""
        self.boundaries += 1
        return self.boundaries - 1 == self.profile.kill_at or self._is(self.profile.kill)

    def takes_host(self) -> bool:
        return self.random.random() < self.profile.whole_host

    def preempts_ms(self) -> int:
        """How long others go on here; 0: not at all."""
        return self.random.choice([1, 30, 300, 1500]) if self._is(self.profile.preempt) else 0

    def pauses_ms(self) -> int:
        return self.random.choice([3_000, 7_000, 12_000]) if self._is(self.profile.pause) else 0

    def resends(self) -> bool:
        return self._is(self.profile.resend)

    def publish_fails(self) -> bool:
        return self._is(self.profile.no_publish)

    def loses(self) -> bool:
        return self._is(self.profile.lose)

    def repeats(self) -> bool:
        return self._is(self.profile.repeat)

    def reorders(self) -> bool:
        return self._is(self.profile.reorder)

    def delay_ms(self) -> int:
        """How long a message is on its way."""
        return self.late_ms() if self._is(self.profile.late) else self.random.randint(1, 10)

    def late_ms(self) -> int:
        return self.random.choice([100, 1_000, 4_000, 12_000])

    def body_ms(self, *, undo: bool) -> int:
        """How long a step's body takes."""
        if undo or not self.on or self.random.random() >= self.profile.slow:
            return self.random.randint(5, 400)
        return self.random.choice([1_500, 3_000, 8_000])

    def in_place_ms(self) -> int:
        """How long a body takes that was thought to be short."""
        return self.random.choice([0, 0, 0, 2, 2_500, 9_000]) if self.on else 0

    def notice_ms(self) -> int:
        """How long a worker's parent needs to see that a child is gone."""
        return self.random.choice([20, 100, 2_000])

    def restart_ms(self) -> int:
        """How long a host is gone."""
        return self.random.choice([100, 1_000, 6_000]) if self.on else 100
