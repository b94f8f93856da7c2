"""The shop's Celery app. `import tasks` gives it with all its steps and workflows."""

from __future__ import annotations

from celery import Celery

import canvas

app = Celery("celeriac", config_source="celeryconfig")
app.set_default()
canvas.install(app)
