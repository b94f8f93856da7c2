"""`celery runs metrics`: figures as a text for Prometheus, or as JSON."""

from __future__ import annotations

from status import cli_text, here
from status.cli_plain import Refused
from status.figures import as_json as json_of
from status.figures import gather


def told(*, as_json: bool) -> str:
    """The figures.

    Raises:
        Refused: Prometheus' client is not installed, and it is not JSON that is asked for.
    """
    if as_json:
        reader = here.reader()
        return cli_text.dumps(json_of(gather(reader.redis, reader.keys))) + "\n"
    try:
        from status.metrics import exposition  # noqa: PLC0415
    except ImportError as error:
        raise Refused(
            "prometheus-client is not installed: `pip install celeriac[metrics]`, or ask for --json"
        ) from error
    return exposition()
