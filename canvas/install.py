"""Makes a Celery app ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from canvas.pulse import Pulse
from status import here
from status.errors import ConfigError
from status.places import places

if TYPE_CHECKING:
    from celery import Celery

#: Without these two a killed worker's messages come back only about 100 s after the visibility timeout.
SAFE_TRANSPORT = {"visibility_timeout": 3600, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}

#: With these kombu would refuse to send the steps of a join in one batch.
REFUSED_TRANSPORT = ("retry_on_timeout", "retry", "retry_on_error")


def install(app: Celery, *, redis_url: str | None = None) -> None:
    """Let an app run workflows: result backend, bootstep and safe transport options.

    Call it once, after the app's settings, before its worker starts.

    Args:
        redis_url: Where runs are kept; None: `REDIS_URL`, or the embedded server.

    Raises:
        ConfigError: The URL is not of Redis, or a transport option would lose or repeat work.
    """
    url = redis_url or places().redis_url
    if urlsplit(url).scheme not in {"redis", "rediss"}:
        raise ConfigError(f"redis_url must start with redis:// or rediss://, got {url!r}")
    here.use(url)
    options: dict[str, Any] = dict(app.conf.broker_transport_options or {})
    for name in REFUSED_TRANSPORT:
        if name in options:
            raise ConfigError(
                f"broker_transport_options[{name!r}] must go: with it kombu can't send steps in one batch"
            )
    app.conf.broker_transport_options = {**SAFE_TRANSPORT, **options}
    app.conf.update(result_backend=f"canvas.backend:RunBackend+{url}")
    app.steps["worker"].add(Pulse)
