"""Makes a Celery app ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from canvas import engine as engines
from canvas import queue_figures, stock, submitted
from canvas.prefetch import Prefetch
from canvas.promises import check_value, describe_value
from canvas.pulse import Pulse
from canvas.serving import Serving
from canvas.unknown import TurnDown
from status import doctor, figures, here
from status.errors import ConfigError
from status.places import places

if TYPE_CHECKING:
    from celery import Celery

#: Imported for the workflow and the tasks that they register.
_ = stock, submitted

#: Without these two a killed worker's messages come back only about 100 s after the visibility timeout.
SAFE_TRANSPORT = {"visibility_timeout": 3600, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}

#: With these kombu would refuse to send the steps of a join in one batch.
REFUSED_TRANSPORT = ("retry_on_timeout", "retry", "retry_on_error")


def install(app: Celery, *, redis_url: str | None = None) -> None:
    """Let an app run workflows: result backend, bootsteps and safe transport options.

    Call it once, where the app is made. Settings are looked at when the app's own are loaded. An app that names
    no broker gets the same Redis for it.

    Args:
        redis_url: Where runs are kept; None: `REDIS_URL`, or the embedded server.

    Raises:
        ConfigError: The URL is not of Redis, or a transport option would lose or repeat work.
    """
    if redis_url is not None and urlsplit(redis_url).scheme not in {"redis", "rediss"}:
        raise ConfigError(f"redis_url must start with redis:// or rediss://, got {redis_url!r}")
    here.use(redis_url)
    here.cancel_with(lambda run_id, reason: engines.of(app).cancel(run_id, reason))
    here.wake_with(lambda run_id, stop: engines.of(app).wake(run_id, stop))
    here.follow_with(lambda run_id, ending: engines.of(app).follow(run_id, ending))
    figures.queues_with(lambda: queue_figures.look(app))
    here.describe_values_with(lambda run_id, name: describe_value(engines.of(app), run_id, name))
    here.check_values_with(lambda run_id, name, text: check_value(engines.of(app), run_id, name, text))
    app.steps["worker"].add(Pulse)
    app.steps["consumer"].add(Prefetch)
    app.steps["consumer"].add(TurnDown)
    app.steps["consumer"].add(Serving)
    doctor.add(doctor.Look.WORKERS, "canvas.doctor:look")

    def configure(**_: Any) -> None:
        _settle(app, redis_url or places().redis_url)

    if cast("Any", app).configured:
        configure()
    else:
        # Not now: asking for settings would start the embedded server, for a `--help` too.
        app.on_after_configure.connect(configure, weak=False)


def _settle(app: Celery, url: str) -> None:
    options: dict[str, Any] = dict(app.conf.broker_transport_options or {})
    for name in REFUSED_TRANSPORT:
        if name in options:
            raise ConfigError(
                f"broker_transport_options[{name!r}] must go: with it kombu can't send the steps of a join in one batch"
            )
    app.conf.broker_transport_options = {**SAFE_TRANSPORT, **options}
    app.conf.update(result_backend=f"canvas.backend:RunBackend+{url}")
    if not app.conf.broker_url:
        app.conf.update(broker_url=url)
    if urlsplit(str(app.conf.broker_url)).scheme in {"redis", "rediss"}:
        app.conf.update(broker_transport="canvas.transport:Transport")
