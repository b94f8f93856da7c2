"""`python -m quick_celery -A APP worker ...`: Celery without what a worker never uses; tests start hundreds of them.

The commands of plugins (Flower's with its web server, `runs`, `up`) and the shell in `celery amqp` are not loaded. All
that a worker is, is as ever; the commands themselves are tested by `python -m celery`.
"""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType
from typing import Any


def without_plugins(**params: Any) -> Any:
    """In the place of `importlib.metadata.entry_points`."""
    return () if params.get("group") == "celery.commands" else entry_points(**params)


shell = ModuleType("click_repl")
shell.register_repl = lambda *_: None  # type: ignore[attr-defined]
entry_points = metadata.entry_points

if __name__ == "__main__":
    sys.modules["click_repl"] = shell
    metadata.entry_points = without_plugins  # type: ignore[assignment]
    from celery.__main__ import main

    sys.exit(main())
