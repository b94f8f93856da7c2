"""The order in stock Celery canvas, as somebody who knows Celery well writes it."""
