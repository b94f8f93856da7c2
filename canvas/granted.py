"""Which claims the steps that run in this worker were granted, and which steps it runs without a message.

A pool's parent process knows what it has handed out, but not whether Redis has granted it. Only what was granted may
be said anew after a restart of Redis: a step that still waits for its grant does not run. Of a step that a process runs
in place (see `canvas.in_place`) the parent knows nothing else: it finds it here, and vouches for it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import NamedTuple
from zlib import crc32

from billiard import current_process

from status.records import PartRef
from status.tokens import new_token

#: Hex digits of a token.
TOKEN_SIZE = 32

#: Pool processes that are told apart; those of a larger pool say nothing anew, and run nothing in place.
SLOTS = 1024

#: Of a slot: a checksum, then a line for each claim, of the token and what else is said of a step in place: whether it
#: runs now, a process id, the message's id, the step's name. The lease of a turn is said likewise.
SLOT_SIZE = 2048
SUM_SIZE = 8
LONGEST_NAME = 200
#: Of a line, beside the run id and the step's name.
LINE_SIZE = TOKEN_SIZE + 64
#: Claims that one process holds at a time.
TOGETHER = 8
#: A slot is read so often before it is left for the next heartbeat.
LOOKS = 5

# Made before the pool forks, so that parent and children share it: a place for each, as each runs one turn at a time.
_board = mmap.mmap(-1, SLOT_SIZE * SLOTS)
#: Which slots were ever written: so many that looking through all of them each second would be felt.
_used = mmap.mmap(-1, SLOTS)
#: Of pools that run their steps in this process: token -> what is said of it.
_here: dict[str, str] = {}
#: What a pool process says beside what it holds, and first to be left out: the turns that it has taken.
_beside: dict[str, str] = {}


class Held(NamedTuple):
    """A step that a process of this worker runs in place.

    Attributes:
        running: Now; else it is about to, or over and not recorded yet.
        leads: It is no step, but a turn that has a lease (see `read.lua`).
        taken: It is a turn that the process has taken itself, and may have begun (see `canvas.next_turns`).
    """

    ref: PartRef
    token: str
    task: str
    pid: int
    running: bool = True
    leads: bool = False
    taken: bool = False


def slot_here() -> int | None:
    """Where this pool process writes; None: the pool is no pool of processes."""
    return getattr(current_process(), "index", None)


def _write(slot: int, lines: Mapping[str, str]) -> None:
    if slot < SLOTS:
        said_all = [token + what for token, what in (*lines.items(), *_beside.items())]
        text = "\n".join(said_all).encode()[: SLOT_SIZE - SUM_SIZE]
        said = b"%08x" % crc32(text) + text if text else b""
        _used[slot] = 1
        _board[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE] = said.ljust(SLOT_SIZE, b"\0")


def note(token: str) -> None:
    """The step of a message begins here, with this claim."""
    slot = slot_here()
    if slot is None:
        _here[token] = ""
    elif len(token) == TOKEN_SIZE:
        _write(slot, {token: ""})


def took(turns: Mapping[str, str]) -> None:
    """This pool process has taken these turns from the broker itself: run id -> workflow. Nobody else has them."""
    _beside.clear()
    _beside.update(
        (new_token(), "+" + said_of(PartRef(run_id, 0, "0", "turn", 1), workflow)) for run_id, workflow in turns.items()
    )
    slot = slot_here()
    if slot is not None:
        _write(slot, {})


def forget(token: str) -> None:
    """Its outcome is written down. (A pool process' place is taken by its next step.)"""
    _here.pop(token, None)


def runs(token: str) -> bool:
    """Whether a step of this worker was granted this claim, and has not ended."""
    return token in _here or _find(token) >= 0


def room_for(run_id: str, step: str) -> int:
    """How many steps with such names this process may say that it has in place."""
    slot = slot_here()
    if slot is not None and (slot >= SLOTS or len(step.encode()) > LONGEST_NAME):
        return 0
    return min(TOGETHER, (SLOT_SIZE - SUM_SIZE) // (LINE_SIZE + len(run_id) + len(step.encode())))


def said_of(ref: PartRef, step: str) -> str:
    """What this process says of a step that it has in place."""
    return f" {os.getpid()} {ref.message_id} {step}"


class Holding:
    """The claims that one turn has on steps in place: this worker vouches for them until they are let go."""

    def __init__(self) -> None:
        self._slot = slot_here()
        self._tokens: tuple[str, ...] = ()

    def hold(self, claims: Mapping[str, str], running: str = "") -> None:
        """These and no others.

        Args:
            claims: Token -> what is said of it, see `said_of`.
            running: The token of the step that runs now.
        """
        self._hold({token: ("*" if token == running else "-") + what for token, what in claims.items()})

    def lead(self, lease: str, what: str) -> None:
        """A turn's lease, and nothing else."""
        self._hold({lease: "~" + what})

    def _hold(self, lines: Mapping[str, str]) -> None:
        if self._slot is not None:
            _write(self._slot, lines)
            return
        for token in self._tokens:
            _here.pop(token, None)
        _here.update(lines)
        self._tokens = tuple(lines)

    def let_go(self) -> None:
        """Of all of them."""
        self.hold({})


def in_place() -> list[Held]:
    """What this worker's processes have in place now."""
    noted = list(_here.items())
    for at in range(0, _end(), SLOT_SIZE):
        noted += [(line[:TOKEN_SIZE], line[TOKEN_SIZE:]) for line in _text(at).split("\n")]
    return [held for token, what in noted if (held := _read(token, what)) is not None]


def _text(at: int) -> str:
    """What a slot says. It may be written meanwhile, by a process that nobody makes wait.

    Half of one text and half of another would make sense: a process id that is none, whose claims are then given away.
    """
    for _ in range(LOOKS):
        said = _board[at : at + SLOT_SIZE].rstrip(b"\0")
        if b"%08x" % crc32(said[SUM_SIZE:]) == said[:SUM_SIZE]:
            return said[SUM_SIZE:].decode(errors="replace")
    return ""  # it writes all the time, so it lives; the next beat sees its claims, which are good for four


def _find(token: str) -> int:
    """Where it stands, or -1."""
    return _board.find(token.encode(), 0, _end())


def _end() -> int:
    """Up to where anything was ever written."""
    return len(_used[:].rstrip(b"\0")) * SLOT_SIZE


def _read(token: str, what: str) -> Held | None:
    # Of a step that came by a message only its token is said: of that the parent knows the rest.
    running, pid, message_id, task = (*what.split(" ", 3), "", "", "", "")[:4]
    ref = PartRef.parse(message_id)
    if ref is None or not pid.isdigit():
        return None
    return Held(ref, token, task, int(pid), running == "*", running == "~", running == "+")


def is_there(pid: int) -> bool:
    """Whether this process lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another's, and it lives
    return True


def clear(token: str) -> None:
    """The process that had it is gone, with all that it had."""
    at = _find(token) // SLOT_SIZE * SLOT_SIZE
    if at >= 0:
        _board[at : at + SLOT_SIZE] = b"\0" * SLOT_SIZE
