"""The order of 14 steps, in stock Celery canvas and on celeriac, measured side by side."""
