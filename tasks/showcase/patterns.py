"""Which patterns there are, and how each is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from status.errors import ConfigError
from tasks.showcase import act_saga, acts, acts_more
from tasks.showcase.stage import Stage


@dataclass(frozen=True)
class Pattern:
    """One of the catalogue.

    Attributes:
        name: What `runs demo` takes.
        guide: What the guide calls it, or its calls; `runs demo` takes these too.
        workflows: In `tasks/catalogue.py`.
        play: Shows and checks it.
    """

    number: int
    name: str
    guide: tuple[str, ...]
    does: str
    workflows: tuple[str, ...]
    play: Callable[[Stage], None]

    @property
    def names(self) -> set[str]:
        """All that it is found by, in lower case."""
        return {self.name, str(self.number), *(name.lower() for name in self.guide)}


PATTERNS = (
    Pattern(
        1,
        "validation",
        ("FanOutFail",),
        "checks at once; the first that raises ends it",
        ("validate_user",),
        acts.validation,
    ),
    Pattern(
        2,
        "enrichment",
        ("FanOut",),
        "five sources at once; what came is used",
        ("enrich_product",),
        acts.enrichment,
    ),
    Pattern(
        3,
        "batch",
        ("ProcessBatch",),
        "many users, ten at a time on all workers together",
        ("process_users",),
        acts.batch,
    ),
    Pattern(
        4,
        "race",
        ("Race",),
        "primary, cache and replica; the first success, within a time",
        ("fetch_data_with_racing",),
        acts.racing,
    ),
    Pattern(
        5,
        "approval",
        ("RacePromiseWithTimeout",),
        "a person says yes or no, from another terminal, or nobody does in time",
        ("process_with_approval",),
        acts.approval,
    ),
    Pattern(
        6,
        "saga",
        ("NewSaga", "RollbackWithStrategy", "CompensateCompleted"),
        "transfers with an optional step; what fails is undone in part, and no money is lost",
        ("complex_transaction",),
        act_saga.saga,
    ),
    Pattern(
        7,
        "status",
        ("UpdateStatus", "GetStatus"),
        "a job of five stages, looked at while it runs",
        ("process_data",),
        acts.status,
    ),
    Pattern(
        8,
        "map",
        ("MapConcurrent",),
        "a step for each item, four at a time; the values in their order",
        ("price_list",),
        acts_more.mapped,
    ),
    Pattern(
        9,
        "quorum",
        (),
        "two of three copies, for a write and for a read",
        ("read_quorum", "write_quorum"),
        acts_more.quorums,
    ),
    Pattern(
        10,
        "hedge",
        (),
        "a second request, if the first is slow or has failed",
        ("fetch_hedged",),
        acts_more.hedged,
    ),
    Pattern(
        11,
        "children",
        (),
        "workflows that await workflows; who is not needed is cancelled",
        ("onboard", "freshest"),
        acts_more.children,
    ),
    Pattern(
        12,
        "approvals",
        (),
        "two of three approvers, in time",
        ("four_eyes",),
        acts_more.approvals,
    ),
)


def find(name: str) -> Pattern:
    """The pattern of that name, number or name in the guide; upper and lower case are one.

    Raises:
        ConfigError: There is none.
    """
    for pattern in PATTERNS:
        if name.lower() in pattern.names:
            return pattern
    known = ", ".join(pattern.name for pattern in PATTERNS)
    raise ConfigError(f"there is no pattern {name!r}; there are {known} (more of each: runs demo --list)")
