# One image for workers, Flower and clients; docker-compose.yml says which is which.
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements.lock pyproject.toml README.md LICENSE CHANGELOG.md celeryconfig.py ./
COPY canvas canvas
COPY saga saga
COPY status status
COPY tasks tasks
# The versions of the lock; its hashes can't be kept here, since a folder that is installed has none.
RUN sed -e 's/ *\\$//' -e '/--hash=/d' requirements.lock > constraints.txt \
    && python -m venv /app \
    && /app/bin/pip install --no-cache-dir --constraint constraints.txt '.[flower,metrics,postgres]'

FROM python:3.11-slim
RUN useradd --create-home --uid 1000 celeriac
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1
USER celeriac
WORKDIR /home/celeriac
# The app that `celery` is for, as `-A` says it elsewhere.
ENV APP=tasks
CMD ["celery", "--help"]
