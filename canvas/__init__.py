"""Composes: steps, workflows, joins, turns; what makes of a Celery app a durable one."""

from canvas.batch import Counts, map_concurrent, process_batch
from canvas.call import Call
from canvas.channels import Channel, channel
from canvas.context import CurrentStep, current_step
from canvas.handle import RunHandle
from canvas.install import install
from canvas.joins import FanOutResult, RaceResult, fan_out, fan_out_fail, quorum, race, with_timeout
from canvas.promises import Promise, PromiseResult, promise, race_promise_with_timeout
from canvas.retry import Retry
from canvas.run import Run, RunLog
from canvas.service import ServiceClient
from canvas.step import Step, Unary, step
from canvas.waitables import Join, Part, Waitable
from canvas.workflow import Workflow, workflow
from status.errors import (
    AllFailed,
    Cancelled,
    CompensationFailed,
    ConfigError,
    NonDeterministic,
    NotAwaitable,
    OrchestrationError,
    PayloadError,
    QuorumFailed,
    RetryAfter,
    RetryRefused,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    StepFailed,
    StepTimeout,
    StoreUnavailable,
    TerminalError,
    TimedOut,
    UnknownWorkflow,
)
from status.states import Answer

__all__ = [
    "AllFailed",
    "Answer",
    "Call",
    "Cancelled",
    "Channel",
    "CompensationFailed",
    "ConfigError",
    "Counts",
    "CurrentStep",
    "FanOutResult",
    "Join",
    "NonDeterministic",
    "NotAwaitable",
    "OrchestrationError",
    "Part",
    "PayloadError",
    "Promise",
    "PromiseResult",
    "QuorumFailed",
    "RaceResult",
    "Retry",
    "RetryAfter",
    "RetryRefused",
    "Run",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunHandle",
    "RunLog",
    "RunNotFound",
    "ServiceClient",
    "Step",
    "StepFailed",
    "StepTimeout",
    "StoreUnavailable",
    "TerminalError",
    "TimedOut",
    "Unary",
    "UnknownWorkflow",
    "Waitable",
    "Workflow",
    "channel",
    "current_step",
    "fan_out",
    "fan_out_fail",
    "install",
    "map_concurrent",
    "process_batch",
    "promise",
    "quorum",
    "race",
    "race_promise_with_timeout",
    "step",
    "with_timeout",
    "workflow",
]
