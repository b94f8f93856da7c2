"""What a demo has shown and checked: for people, and as one line of JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.text import Text

from status.cli_text import dumps, length


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold, whatever happened on the way.

    Attributes:
        seen: The facts that it was judged by.
    """

    claim: str
    holds: bool
    seen: str


@dataclass(slots=True)
class Report:
    """What came of a demo.

    Attributes:
        shown: What was to be seen, a sentence each.
        runs: The final state of each run, by its id.
    """

    pattern: str
    guide: str
    shown: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether something was checked, and all of it holds."""
        return bool(self.checks) and all(check.holds for check in self.checks)

    def as_json(self) -> str:
        """One line."""
        return dumps({**asdict(self), "took_s": round(self.took_s, 3), "holds": self.holds})

    def show(self, console: Console) -> None:
        """Say it to people."""
        console.print()
        console.print(Text("what it showed", style="bold"))
        for sentence in self.shown:
            console.print(Text(f"  {sentence}"), soft_wrap=True)
        console.print(Text("checked", style="bold"))
        for check in self.checks:
            mark = Text("  holds   ", style="green") if check.holds else Text("  BROKEN  ", style="bold red")
            console.print(mark + Text(check.claim) + Text(f"  ({check.seen})", style="dim"), soft_wrap=True)
        look = f"{len(self.runs)} runs in {length(self.took_s)}"
        if self.runs:
            look += f"; look at one: celery -A tasks runs show {next(iter(self.runs))}"
        console.print(Text(look, style="dim"), soft_wrap=True)
