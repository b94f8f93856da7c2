"""When a failed attempt is made again."""

from __future__ import annotations

import itertools
import pickle

import pytest

from canvas import ConfigError, PayloadError, Retry, RetryAfter, TerminalError

BROKEN = ValueError("broken")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_attempts": 0}, "max_attempts=.* at least 1.* got 0"),
        ({"first_s": -1}, "first_s=.* at least 0, got -1"),
        ({"factor": 0.5}, "factor=.* at least 1, got 0.5"),
        ({"max_s": -0.1}, "max_s=.* at least 0, got -0.1"),
        ({"jitter": 1.1}, "jitter=.* from 0 to 1, got 1.1"),
        ({"jitter": -0.1}, "jitter=.* from 0 to 1, got -0.1"),
        ({"first_s": float("nan")}, "first_s=.* got nan"),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        Retry(**options)


def test_waits_grow_by_the_factor_up_to_the_longest():
    retry = Retry(None, first_s=1, factor=3, max_s=20, jitter=0)

    assert [retry.delay_s(attempt, BROKEN) for attempt in (1, 2, 3, 4, 5)] == [1, 3, 9, 20, 20]


def test_jitter_stays_within_its_share():
    retry = Retry(None, first_s=10, factor=1, jitter=0.5)

    waits = [retry.delay_s(1, BROKEN) for _ in range(500)]

    assert all(5 <= wait <= 15 for wait in waits)
    assert max(waits) - min(waits) > 5


def test_the_first_attempt_counts():
    retry = Retry(3)

    assert [retry.delay_s(attempt, BROKEN) is None for attempt in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize("factor", [1.0, 2.0, 1e6])
def test_endless_retries_never_overflow(factor):
    assert Retry(None, factor=factor, max_s=60, jitter=0).delay_s(1_000_000, BROKEN) <= 60


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (Retry(), BROKEN, True),
        (Retry(), TerminalError("no"), False),
        (Retry(on=(TerminalError,)), TerminalError("no"), False),
        (Retry(), PayloadError("no"), False),
        (Retry(), ConfigError("no"), False),
        (Retry(on=(KeyError,)), BROKEN, False),
        (Retry(on=(ValueError,)), UnicodeError("a ValueError"), True),
        (Retry(on=(ValueError,), never=(UnicodeError,)), UnicodeError(""), False),
        (Retry(on=(ValueError,)), None, True),
        (Retry(1), None, False),
    ],
)
def test_on_and_never_say_which_errors_are_tried_again(retry, error, again):
    assert (retry.delay_s(1, error) is not None) is again


def test_retry_after_says_when_itself():
    assert Retry(first_s=1, max_s=2).delay_s(1, RetryAfter(300)) == 300
    assert Retry(on=(KeyError,)).delay_s(1, RetryAfter(7)) == 7
    assert Retry().delay_s(1, RetryAfter(-5)) == 0


def test_retry_after_counts_as_an_attempt():
    assert Retry(2).delay_s(2, RetryAfter(1)) is None


def test_a_message_carries_the_numbers():
    retry = Retry(7, first_s=3, factor=4, max_s=5, jitter=0)

    assert Retry.from_timing(retry.timing()).timing() == retry.timing()


def test_a_terminal_error_keeps_message_and_code_when_pickled():
    for error in (TerminalError("gone", 410), RetryAfter(3, "later")):
        back = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
        assert vars(back) == vars(error)
        assert type(back) is type(error)


def test_every_error_of_ours_survives_being_pickled():
    from status.errors import AllFailed, ErrorInfo, RunCancelled, RunNotFound, StepFailed, StepTimeout

    info = ErrorInfo("pay", "ValueError", "no", 500, bases=("Exception",))
    errors = [
        StepFailed(info, 2),
        StepTimeout(info, 1),
        AllFailed((StepFailed(info),)),
        RunCancelled("r1", "cancelled", info),
        RunNotFound("r1"),
    ]
    for error, protocol in itertools.product(errors, range(2, 6)):
        back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  # our own
        assert (type(back), str(back)) == (type(error), str(error))
