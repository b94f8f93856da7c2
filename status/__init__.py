"""Remembers: every run, its journal and its steps, in Redis; and tells of them."""

from status.api import cancel, get_status, history, list_runs, reject_promise, resolve_promise, retry, send, watch
from status.errors import ErrorInfo
from status.models import Event, Page, RunStatus, StepStatus
from status.states import Answer, State

__all__ = [
    "Answer",
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
    "reject_promise",
    "resolve_promise",
    "retry",
    "send",
    "watch",
]
