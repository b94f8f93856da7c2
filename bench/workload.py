"""What a workload is: sides that do the same work, a turn of one of them, and figures that a turn gives."""

from __future__ import annotations

import statistics
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.stage import Crew, Stage, on_stage

#: What a turn has seen of each figure: one value, or one for each time that it looked.
Seen = Mapping[str, Sequence[float]]
#: Makes one number of what all turns of a side have seen of a figure.
Fold = Callable[[Sequence[Sequence[float]]], float]


def median(turns: Sequence[Sequence[float]]) -> float:
    """The median of the turns' own medians."""
    return statistics.median(statistics.median(turn) for turn in turns)


def p99(turns: Sequence[Sequence[float]]) -> float:
    """Over all that was seen in any turn: a single turn sees too little to have one."""
    everything = sorted(value for turn in turns for value in turn)
    return everything[min(len(everything) - 1, int(len(everything) * 0.99))]


def most(turns: Sequence[Sequence[float]]) -> float:
    return max(value for turn in turns for value in turn)


def total(turns: Sequence[Sequence[float]]) -> float:
    return sum(value for turn in turns for value in turn)


@dataclass(frozen=True)
class Figure:
    """A column of results.

    Attributes:
        better: `more`, `less`, or `is`: neither is, it only says what happened.
        source: What turns call it; None: as it is called itself.
    """

    name: str
    title: str
    better: str = "less"
    digits: int = 1
    fold: Fold = median
    source: str | None = None


@dataclass(frozen=True)
class Part:
    """One side of a workload: the folder of its code, and the crew that does its work."""

    name: str
    package: str
    crew: Crew
    title: str
    way: str = ""  #: for a package that has several


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done. Everything is bounded: pairs, amounts, and the time that is waited for them."""

    pairs: int  #: how often each side has its turn
    wait_s: float  #: for all that a turn starts at once
    amounts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A size for each `--size`."""

    full: Size
    quick: Size
    tiny: Size

    def of(self, name: str) -> Size:
        """The size of that name."""
        size: Size = getattr(self, name)
        return size


class Workload(ABC):
    """One of w1 to w6."""

    name: str
    title: str
    parts: tuple[Part, ...]
    figures: tuple[Figure, ...]  #: the first is the one that `ratio` compares
    sizes: Sizes
    needs_its_pool = False  #: pool and concurrency are part of what is measured

    @abstractmethod
    def warm_up(self, stage: Stage, side: Any, size: Size) -> None:
        """Let everything be loaded and connected before anything is measured."""

    @abstractmethod
    def turn(self, stage: Stage, side: Any, size: Size, name: str) -> Seen:
        """Do the work once. `name` is another one each time.

        Raises:
            Unfinished: It was not done in time.
        """


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen on the command line."""

    size: str = "full"
    sides: tuple[str, ...] | None = None  #: None: all
    pool: str | None = None
    concurrency: int | None = None
    pairs: int | None = None
    amounts: Mapping[str, int] | None = None  #: in place of the size's own


def chosen_size(workload: Workload, choice: Choice) -> Size:
    size = workload.sizes.of(choice.size)
    amounts = dict(size.amounts) | {
        name: value for name, value in (choice.amounts or {}).items() if name in size.amounts
    }
    return replace(size, pairs=choice.pairs or size.pairs, amounts=amounts)


def chosen_parts(workload: Workload, choice: Choice) -> tuple[Part, ...]:
    """The sides that are measured, with the pool that was asked for where the workload does not need its own."""
    parts = [part for part in workload.parts if choice.sides is None or part.name in choice.sides]
    if workload.needs_its_pool:
        return tuple(parts)
    crews = [
        replace(
            part.crew,
            pool=choice.pool or part.crew.pool,
            concurrency=choice.concurrency or part.crew.concurrency,
        )
        for part in parts
    ]
    return tuple(replace(part, crew=crew) for part, crew in zip(parts, crews, strict=True))


def measure(workload: Workload, choice: Choice, say: Callable[[str], None]) -> dict[str, Any]:
    """Each side's turns, in turn: what else the machine does meets all sides alike.

    Raises:
        ChildFailed: A process did not start, or died.
        Unfinished: Some work was not done in time.
    """
    size, parts = chosen_size(workload, choice), chosen_parts(workload, choice)
    seen: dict[str, list[Seen]] = {part.name: [] for part in parts}
    with (
        tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder,
        on_stage(_crews(parts), Path(folder)) as stages,
    ):
        sides = {part.name: stages[part.crew.name].side(part.package, part.way) for part in parts}
        for part in parts:
            workload.warm_up(_in_front(stages, part), sides[part.name], size)
        for pair in range(size.pairs):
            for part in parts:
                stage = _in_front(stages, part)
                stage.settle(size.wait_s)
                turn = workload.turn(stage, sides[part.name], size, f"{part.name}-{pair}")
                seen[part.name].append(turn)
                say(f"{workload.name} {part.name:>11} {pair + 1}/{size.pairs}: {_briefly(workload, turn)}")
        valkey = next(iter(stages.values())).version()
    return {"valkey": valkey, **result(workload, parts, size, seen)}


def _in_front(stages: Mapping[str, Stage], part: Part) -> Stage:
    """A side's stage, which is now the one that this process submits to."""
    stage = stages[part.crew.name]
    stage.to_front()
    return stage


def _crews(parts: Iterable[Part]) -> list[Crew]:
    """Each crew once, with the code of just those sides that are measured."""
    crews: dict[str, Crew] = {}
    for part in parts:
        before = crews.get(part.crew.name)
        packages = (*(before.packages if before else ()), part.package)
        crews[part.crew.name] = replace(part.crew, packages=tuple(dict.fromkeys(packages)))
    return list(crews.values())


def _briefly(workload: Workload, turn: Seen) -> str:
    shown = [figure for figure in workload.figures if (figure.source or figure.name) in turn][:3]
    values = ((figure, figure.fold([turn[figure.source or figure.name]])) for figure in shown)
    return ", ".join(f"{figure.name} {value:.{figure.digits}f}" for figure, value in values)


def result(workload: Workload, parts: Sequence[Part], size: Size, seen: Mapping[str, list[Seen]]) -> dict[str, Any]:
    """What goes into the file: each side's figures, and each other side's against stock."""
    sides = {part.name: _folded(workload, seen[part.name]) for part in parts}
    found: dict[str, Any] = dict(sides)
    stock = sides.get("stock")
    if stock is not None:
        ratios = {name: _ratios(workload, stock, side) for name, side in sides.items() if name != "stock"}
        lead = workload.figures[0].name
        if lead in ratios.get("ours", {}):
            found["ratio"] = ratios["ours"][lead]
        found["ratios"] = ratios
    found["measured"] = {
        "ratio_of": workload.figures[0].name,
        "pairs": size.pairs,
        **size.amounts,
        "workers": {part.name: part.crew.text for part in parts},
        "by_turn": {name: [_lead(workload, turn) for turn in turns] for name, turns in seen.items()},
    }
    return found


def _lead(workload: Workload, turn: Seen) -> float:
    figure = workload.figures[0]
    return round(figure.fold([turn[figure.source or figure.name]]), 3)


def _folded(workload: Workload, turns: Sequence[Seen]) -> dict[str, float]:
    return {
        figure.name: round(figure.fold([turn[source] for turn in turns]), 3)
        for figure in workload.figures
        if (source := figure.source or figure.name) in turns[0]
    }


def _ratios(workload: Workload, stock: Mapping[str, float], side: Mapping[str, float]) -> dict[str, float]:
    names = [figure.name for figure in workload.figures if figure.better != "is"]
    return {name: round(side[name] / stock[name], 3) for name in names if name in side and stock.get(name)}
