"""`python -m simulation.run --seed N` plays one seed and shows what happened; `--count N` plays many."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

import click

from simulation.ground import Ground, ground
from simulation.server import Server
from simulation.watch import Violation
from simulation.world import World

#: Lines of the trace that are shown of a seed that failed.
LINES = 200


def play(on: Ground, seed: int) -> str:
    """Play one seed. Gives what went wrong, or ''."""
    world = World(on, seed)
    try:
        world.play()
    except Violation as broken:
        return story(world, str(broken))
    except Exception as error:  # noqa: BLE001  # the simulation's own mistakes are failures of a seed too
        return story(world, "".join(traceback.format_exception(error)))
    return ""


def story(world: World, why: str) -> str:
    """What a failing seed did."""
    lines = [f"{ms:>7} ms  {who:<14} {what}" for ms, who, what in world.trace[-LINES:]]
    return "\n".join([f"seed {world.seed}: {why}", f"{world.plan}", f"{world.profile}", *lines, replay(world.seed)])


def replay(seed: int) -> str:
    """The command that plays it again."""
    return f"play it again: make simulate SEED={seed}"


@click.command()
@click.option("--seed", default=0, help="The first seed.")
@click.option("--count", default=1, help="How many seeds.")
@click.option("--seconds", default=0.0, help="Stop after so long; 0: when all are played.")
@click.option("--every", default=1, help="Play each nth seed only: for several processes side by side.")
@click.option("--socket", default="", help="Unix socket of a server that is there already.")
@click.option("--db", default=0, help="Its database.")
@click.option("--trace", is_flag=True, help="Show what happened, also when it ended well.")
def main(*, seed: int, count: int, seconds: float, every: int, socket: str, db: int, trace: bool) -> None:
    """Play seeds; a seed that fails is shown with the command that plays it again, and the exit code is 1."""
    failed = played = 0
    start_s = time.monotonic()
    with ExitStack() as stack:
        if not socket:
            server = Server(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(server.stop)
            server.start()
            socket = server.socket
        on = stack.enter_context(ground(socket, db))
        for at in range(seed, seed + count * every, every):
            if seconds and time.monotonic() - start_s > seconds:
                break
            played += 1
            wrong = play(on, at)
            if wrong:
                failed += 1
                print(wrong, flush=True)
            elif trace:
                print(story(World(on, at), "ended well"))
            if failed >= 5:
                break
    took_s = time.monotonic() - start_s
    print(f"{played} seeds played, {failed} failed, {took_s:.1f} s, {1000 * took_s / max(1, played):.0f} ms each")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
