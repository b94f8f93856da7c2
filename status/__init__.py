"""Remembers: every run, its journal and its steps, in Redis; and tells of them."""

from status.api import cancel, get_status, history, list_runs, retry, watch
from status.errors import ErrorInfo
from status.models import Event, Page, RunStatus, StepStatus
from status.states import State

__all__ = [
    "ErrorInfo",
    "Event",
    "Page",
    "RunStatus",
    "State",
    "StepStatus",
    "cancel",
    "get_status",
    "history",
    "list_runs",
    "retry",
    "watch",
]
