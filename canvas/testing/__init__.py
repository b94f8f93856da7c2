"""Tests of workflows: the real engine in the test's own process, fakes for steps, and a clock that jumps."""

from canvas.testing.fakes import Fake
from canvas.testing.played import PlayedRun
from canvas.testing.worker import Attempt
from canvas.testing.workflows import Workflows

__all__ = ["Attempt", "Fake", "PlayedRun", "Workflows"]
