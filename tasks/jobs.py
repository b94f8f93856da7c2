"""The stages of a job: each reads what the one before it has left in the database."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass

from sqlalchemy import select

from canvas import Retry, current_step, step
from status.errors import TerminalError
from tasks.catalogue_models import ArtefactRow
from tasks.domain import Provider
from tasks.once import derived_id, reading, writing
from tasks.sources import ask, insert_missing

QUEUE = "catalogue"
_RETRY = Retry(max_attempts=3, first_s=0.1)


@dataclass(frozen=True)
class Job:
    """A table that is to become a report. `table` is CSV with the columns `product` and `cents`."""

    job_id: str
    table: str


@step(name="jobs.download", queue=QUEUE, retry=_RETRY)
def download(job: Job) -> None:
    """Fetch the table.

    Raises:
        ProviderDown: Who exports it did not answer.
    """
    ask(Provider.EXPORTS)
    _leave(job, "download", job.table)


@step(name="jobs.validate", queue=QUEUE)
def validate(job: Job) -> None:
    """Look at each line.

    Raises:
        TerminalError: A line is wrong (code 422).
    """
    lines = list(csv.DictReader(io.StringIO(artefact(job.job_id, "download"))))
    for number, line in enumerate(lines, 2):
        if not (line["cents"] or "").isdecimal():
            raise TerminalError(f"line {number}: {line['cents']!r} is no number of cents", code=422)
    _leave(job, "validate", json.dumps([(line["product"], int(line["cents"])) for line in lines]))


@step(name="jobs.transform", queue=QUEUE)
def transform(job: Job) -> None:
    """Add up what belongs together."""
    totals: dict[str, int] = {}
    for product, cents in json.loads(artefact(job.job_id, "validate")):
        totals[product] = totals.get(product, 0) + cents
    _leave(job, "transform", json.dumps(totals))


@step(name="jobs.upload", queue=QUEUE, retry=_RETRY)
def upload(job: Job) -> None:
    """Put the report where people look for it."""
    totals: dict[str, int] = json.loads(artefact(job.job_id, "transform"))
    report = "".join(f"{product}: {cents / 100:.2f}\n" for product, cents in sorted(totals.items()))
    _leave(job, "upload", report)


@step(name="jobs.complete", queue=QUEUE)
def complete(job: Job) -> None:
    """Say that it is there."""
    _leave(job, "notify", f"the report of {job.job_id} is there")


def artefact(job_id: str, stage: str) -> str:
    """What a stage has left.

    Raises:
        TerminalError: Nothing (code 404).
    """
    with reading() as session:
        mine = (ArtefactRow.job_id == job_id, ArtefactRow.stage == stage)
        content = session.scalar(select(ArtefactRow.content).where(*mine))
    if content is None:
        raise TerminalError(f"stage {stage} of job {job_id} has left nothing", code=404)
    return content


def stages_of(job_id: str) -> set[str]:
    """The stages that have left something."""
    with reading() as session:
        return set(session.scalars(select(ArtefactRow.stage).where(ArtefactRow.job_id == job_id)))


def _leave(job: Job, stage: str, content: str) -> None:
    # Left once: a stage that is run again would leave the same.
    key = derived_id("art", current_step().idempotency_key)
    with writing() as session:
        insert_missing(session, [ArtefactRow(key=key, job_id=job.job_id, stage=stage, content=content)])
