"""What runai-ctl prints of GPUs and containers for people: tables that fit the terminal."""

from __future__ import annotations

import time

from runai_runtime.columns import UNLIMITED, Column, Table, printable
from runai_runtime.containers import SHORT
from runai_runtime.grant import MIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runai_runtime.columns import Piece
    from runai_runtime.containers import Container
    from runai_runtime.overview import GpuUse, Overview

UNKNOWN = "-"
LEGEND = "Sizes in MiB. FREE can still be promised; USED of a GPU counts everybody's."


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


def number(name: str, rank: int = 0) -> Column:
    return Column(name, right=True, rank=rank)


def gpu_table(gpus: Iterable[GpuUse]) -> Table:
    made = Table(
        number("GPU"),
        Column("NAME", least=6),
        number("MEMORY"),
        number("PROMISED", rank=1),
        number("USED"),
        number("FREE"),
    )
    for use in gpus:
        sizes = (use.gpu.total, use.promised, use.used, use.free)
        made.add(str(use.gpu.index), printable(use.gpu.name), *(mib(size) for size in sizes))
    return made


def container_table(containers: Iterable[Container], *, repeat: bool) -> Table:
    """A line for each GPU of each container, with REPEAT each whole for who reads it by a program."""
    made = Table(
        *(Column("NAME", least=6), Column("ID"), Column("IMAGE", least=16, rank=4), number("GPU"), number("SHARE")),
        *(number("USED"), number("PEAK", rank=3), Column("KEPT BY", rank=1), number("SINCE", rank=2)),
    )
    for container in containers:
        name, image = printable(container.name or UNKNOWN), printable(container.image or UNKNOWN)
        for place, (gpu, figure) in enumerate(zip(container.gpus, container.figures, strict=True)):
            again = place > 0 and not repeat
            made.add(
                *(("", "", "") if again else (name, container.id[:SHORT], image)),
                *(str(gpu), mib(figure.share), mib(figure.used), mib(figure.peak)),
                *(("", "") if again else (container.kept_by, age(container.since))),
            )
    return made


def status_lines(overview: Overview, width: int) -> Iterator[list[Piece]]:
    """The screen of `runai-ctl status`."""
    yield from gpu_table(overview.gpus).lines(width)
    yield []
    left_out: list[str] = []
    if overview.containers:
        made = container_table(overview.containers, repeat=width == UNLIMITED)
        left_out = made.left_out(width)
        yield from made.lines(width)
    else:
        yield [("No container has a share.", "")]
    yield []
    yield [(LEGEND, "")]
    if left_out:
        yield [(f"A wider terminal has {', '.join(left_out)} too.", "")]
    yield from ([(line, "red")] for line in warnings(overview))


def warnings(overview: Overview) -> list[str]:
    return [
        *(
            f"The agent of {printable(container.title)} is gone: it gets no more memory of a GPU until it is restarted."
            for container in overview.containers
            if container.is_bereft
        ),
        *(
            f"The grant of {name[:SHORT]} can't be read: what is free is not known, and no container is let in."
            for name in overview.unreadable
        ),
    ]
