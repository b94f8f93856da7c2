"""Tokens are never the same, in a forked process neither."""

from __future__ import annotations

import os

from canvas.granted import TOKEN_SIZE
from status.tokens import new_token


def test_tokens_have_their_size_and_are_never_the_same():
    tokens = {new_token() for _ in range(10_000)}

    assert len(tokens) == 10_000
    assert {len(token) for token in tokens} == {TOKEN_SIZE}


def test_a_forked_process_draws_others():
    reader, writer = os.pipe()
    if os.fork() == 0:  # the child: nothing of pytest is to run in it
        os.write(writer, new_token().encode())
        os._exit(0)
    os.close(writer)
    childs = os.read(reader, TOKEN_SIZE).decode()
    os.close(reader)
    os.wait()

    assert len(childs) == TOKEN_SIZE
    assert childs != new_token()
