"""An app whose run reads what several others send, 100 messages a round; run as a program, one of those who send.

Each message says who sent it and its number. The run fails at the first that is not the next of its sender.
"""

from __future__ import annotations

import os
import sys

from celery import Celery

import canvas
from canvas import Answer, Run, TerminalError, channel, fan_out_fail, workflow

app = Celery("mailbox", broker=os.environ["REDIS_URL"], set_as_current=False)
canvas.install(app, redis_url=os.environ["REDIS_URL"])
app.set_default()

mail = channel("mail", tuple[str, int])

#: Awaits of a round: so many messages at once.
AT_ONCE = (1, 9, 90)


@workflow(name="mailbox.read")
async def read(run: Run, left: int, next_of: dict[str, int]) -> dict[str, int]:
    for many in AT_ONCE:
        for sender, number in await fan_out_fail(*[mail.receive() for _ in range(many)]):
            if number != next_of.get(sender, 0):
                raise TerminalError(f"{sender} sent {number}, expected {next_of.get(sender, 0)}")
            next_of[sender] = number + 1
    left -= sum(AT_ONCE)
    return await run.restart(left, next_of) if left else next_of


def main(run_id: str, sender: str, many: int) -> None:
    """Send so many messages, one after the other."""
    for number in range(many):
        answer = mail.send(run_id, (sender, number))
        if answer is not Answer.ACCEPTED:
            raise SystemExit(f"{sender}: {number} was {answer}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
