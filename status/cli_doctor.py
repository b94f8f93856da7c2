"""`celery runs doctor`: findings as a table, or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from time import monotonic

import click
from celery import Celery
from rich.console import Console
from rich.table import Table
from rich.text import Text

from status import cli_text
from status.doctor import examine as find
from status.doctor_words import Finding, Severity, many, worst

STYLES = {
    Severity.OK: "green",
    Severity.INFO: "blue",
    Severity.WARNING: "yellow",
    Severity.ERROR: "bold red",
}


def examine(app: Celery, app_name: str, *, timeout_s: float, as_json: bool) -> int:
    """Look at everything and say what was found. Returns the exit code."""
    began_s = monotonic()
    findings = find(app, app_name, timeout_s=timeout_s)
    took_s = monotonic() - began_s
    if as_json:
        told = {
            "severity": worst(findings),
            "took_s": round(took_s, 3),
            "findings": [asdict(finding) for finding in findings],
        }
        click.echo(cli_text.dumps(told))
    else:
        show(Console(), findings, took_s)
    return worst(findings).exit_code


def show(console: Console, findings: Sequence[Finding], took_s: float) -> None:
    """A table for a terminal; into a pipe or a file a line each, for grep."""
    if console.is_terminal:
        console.print(table(findings))
        console.print()
    else:
        for found in findings:
            console.print(line(found), soft_wrap=True)
    console.print(summary(findings, took_s), soft_wrap=True)


def line(found: Finding) -> Text:
    """A finding as one line."""
    remedy = f" → {found.remedy}" if found.remedy else ""
    return Text(f"{found.severity:<7}  {found.check:<17}  {found.seen}{remedy}")


def table(findings: Sequence[Finding]) -> Table:
    """Findings, one a row; what to do stands under what was seen."""
    drawn = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for finding in findings:
        drawn.add_row(
            Text(finding.severity, style=STYLES[finding.severity]),
            Text(finding.check, style="dim" if finding.severity is Severity.OK else "bold"),
            _said(finding),
        )
    return drawn


def _said(finding: Finding) -> Text:
    said = Text(finding.seen, style="dim" if finding.severity is Severity.OK else "")
    if finding.remedy:
        said.append(f"\n→ {finding.remedy}", style="cyan not dim")
    return said


def summary(findings: Sequence[Finding], took_s: float) -> Text:
    """The last line: how many of which."""
    numbers = Counter(finding.severity for finding in findings)
    parts = [many(numbers[severity], severity) for severity in (Severity.ERROR, Severity.WARNING) if numbers[severity]]
    parts += [f"{numbers[severity]} {severity}" for severity in (Severity.INFO, Severity.OK) if numbers[severity]]
    return Text(f"{', '.join(parts)} in {cli_text.length(took_s)}", style=STYLES[worst(findings)])
