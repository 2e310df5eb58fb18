"""What runai-ctl prints for people: tables that fit the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runai_runtime.containers import SHORT, Container
from runai_runtime.grant import MIB
from runai_runtime.overview import GpuUse, Overview

PIPED = 240  # columns where there is no terminal: nothing is cut short for who reads it by a program
WIDE = 110  # columns from which on an image has room

UNKNOWN = "-"


def console() -> Console:
    """For stdout. rich itself leaves colours out where that is no terminal or NO_COLOR is set."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=PIPED if piped else None)


def printable(text: str) -> Text:
    """TEXT of an engine or a container, which may hold anything, as one line without colours of its own."""
    return Text("".join(character if character.isprintable() else "?" for character in text), end="")


def short(text: str) -> Text:
    """The same for a cell that is cut where there is no room."""
    cell = printable(text)
    cell.no_wrap, cell.overflow = True, "ellipsis"
    return cell


def mib(size: int | None) -> str:
    return UNKNOWN if size is None else str(size // MIB)


def age(since: float, now: float | None = None) -> str:
    """How long ago SINCE was, in two units at most: "3d 4h"."""
    if not since:
        return UNKNOWN
    seconds = max(0, int((time.time() if now is None else now) - since))
    units = (("d", seconds // 86400), ("h", seconds // 3600 % 24), ("m", seconds // 60 % 60), ("s", seconds % 60))
    first = next((at for at, (_, count) in enumerate(units) if count), 3)
    return " ".join(f"{count}{unit}" for unit, count in units[first : first + 2] if count) or "0s"


def table(*columns: str) -> Table:
    """A table without lines; a column that begins with > is of numbers, and is never cut, one with ~ may be."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        if column.startswith("~"):
            made.add_column(column[1:], min_width=6)  # rich cuts those first that may wrap: short() doesn't
        else:
            name = column.lstrip(">")
            side: Literal["left", "right"] = "left" if name == column else "right"
            made.add_column(name, justify=side, no_wrap=True, min_width=len(name))
    return made


def gpu_table(gpus: Iterable[GpuUse]) -> Table:
    made = table(">GPU", "~NAME", ">MEMORY", ">PROMISED", ">USED", ">FREE")
    for use in gpus:
        sizes = (use.gpu.total, use.promised, use.used, use.free)
        made.add_row(str(use.gpu.index), short(use.gpu.name), *(mib(size) for size in sizes))
    return made


def container_table(containers: Iterable[Container], width: int) -> Table:
    """A line for each GPU of each container."""
    image = ("~IMAGE",) if width >= WIDE else ()
    made = table("~NAME", "ID", *image, ">GPU", ">SHARE", ">USED", ">PEAK", "KEPT BY", ">SINCE")
    for container in containers:
        for place, (gpu, figure) in enumerate(zip(container.gpus, container.figures, strict=True)):
            again = place > 0
            sizes = (figure.share, figure.used, figure.peak)
            made.add_row(
                "" if again else short(container.name or UNKNOWN),
                "" if again else container.id[:SHORT],
                *(("" if again else short(container.image or UNKNOWN),) if image else ()),
                *(str(gpu), *(mib(size) for size in sizes)),
                *(("", "") if again else (container.by, age(container.since))),
            )
    return made


def status_screen(overview: Overview, width: int) -> RenderableType:
    containers: RenderableType = Text("No container has a share.")
    if overview.containers:
        containers = container_table(overview.containers, width)
    parts: list[RenderableType] = [gpu_table(overview.gpus), Text(), containers]
    parts += [Text(), Text("Sizes in MiB. FREE can still be promised; USED of a GPU counts everybody's.")]
    parts += [Text(line, style="red") for line in warnings(overview)]
    return Group(*parts)


def print_sections(to: Console, sections: Iterable[tuple[str, list[str]]]) -> None:
    """Headings, with sentences below them that are wrapped, never cut."""
    for heading, lines in sections:
        to.print(Text(heading, style="bold"))
        for line in lines:
            to.print(Padding(printable(line), (0, 0, 0, 2)))


def warnings(overview: Overview) -> list[str]:
    return [
        f"The grant of {name[:SHORT]} can't be read: what is free is not known, and no container is let in."
        for name in overview.unreadable
    ]
