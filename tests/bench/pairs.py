"""Measure by pairs: A B A B ... in one run, so that whatever else the machine does meets both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Action = Callable[[], object]


@dataclass(frozen=True)
class Pairs:
    """Seconds of two actions, round by round."""

    base: Sequence[float]
    other: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        return [other / base for base, other in zip(self.base, self.other, strict=True)]

    @property
    def differences(self) -> list[float]:
        """Seconds that the other takes longer."""
        return [other - base for base, other in zip(self.base, self.other, strict=True)]


def seconds(action: Action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(actions: Sequence[Action], rounds: int, warm_up: int = 2) -> list[list[float]]:
    """Seconds of each action in each round. The order turns from round to round: the first is not always first."""
    for action in actions:
        for _ in range(warm_up):
            action()
    taken: list[list[float]] = [[] for _ in actions]
    for round_ in range(rounds):
        for i in range(len(actions)):
            which = (i + round_) % len(actions)
            taken[which].append(seconds(actions[which]))
    return taken


@dataclass(frozen=True)
class Row:
    """One line of the table: a median with its range, next to what was asked for."""

    name: str
    asked: float
    measured: Sequence[float]
    unit: str = ""
    at_least: bool = False
    """What is asked is the least, not the most."""

    @property
    def median(self) -> float:
        return statistics.median(self.measured)

    @property
    def met(self) -> bool:
        return self.median >= self.asked if self.at_least else self.median <= self.asked

    def cells(self) -> list[str]:
        asked, median, low, high = (
            f"{value:.2f}{self.unit}" for value in (self.asked, self.median, min(self.measured), max(self.measured))
        )
        bound = ">=" if self.at_least else "<="
        return [self.name, f"{bound} {asked}", median, low, high, str(len(self.measured)), "yes" if self.met else "NO"]


HEADINGS = ["what", "asked", "median", "least", "most", "pairs", "met"]


def table(rows: Sequence[Row]) -> str:
    cells = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
