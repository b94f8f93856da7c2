"""The shop: a Celery app whose orders run as workflows, and what they are made of."""

from tasks import orders  # its import registers the workflow and all steps
from tasks.app import app

__all__ = ["app", "orders"]
