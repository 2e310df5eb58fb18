"""runai-ctl top: who uses the GPUs now, with bars, again and again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from runai_runtime.columns import UNLIMITED, Column, Table, printable
from runai_runtime.containers import SHORT, Container, Process
from runai_runtime.host import Host
from runai_runtime.overview import GpuUse, Overview, look
from runai_runtime.tables import UNKNOWN, age, mib, number, warnings
from runai_runtime.terminal import ended_in_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runai_runtime.columns import Cell, Piece

LEAST_BAR = 8
MOST_PROCESSES = 8  # of a container on a screen, those that hold most
DIM = "bright_black"

ORDERS: dict[str, Callable[[Container], tuple[float, str]]] = {
    "used": lambda container: (-sum(figure.used or 0 for figure in container.figures), container.title),
    "share": lambda container: (-sum(figure.share for figure in container.figures), container.title),
    "peak": lambda container: (-sum(figure.peak or 0 for figure in container.figures), container.title),
    "since": lambda container: (container.since, container.title),
    "name": lambda container: (0, container.title),
}
"""What containers can be sorted by: the largest first, the oldest first, or by name."""


class Bar:
    """PART of WHOLE; what is there and what is left differ in shape too, for terminals without colours."""

    def __init__(self, part: int | None, whole: int, *, ascii_only: bool) -> None:
        self.part, self.whole, self.ascii_only = part, whole, ascii_only

    def pieces(self, width: int) -> list[Piece]:
        if self.part is None or self.whole <= 0:
            return [(UNKNOWN.ljust(width), "")]
        full, empty = ("#", ".") if self.ascii_only else ("█", "░")
        ratio = min(1.0, self.part / self.whole)
        filled = round(ratio * width) or int(self.part > 0)
        colour = "red" if ratio > 0.95 else "yellow" if ratio > 0.8 else "green"
        return [(full * filled, colour), (empty * (width - filled), DIM)]


class Screen:
    """Overviews as screens of WIDTH columns, of HEIGHT lines at most (0: as many as it takes)."""

    def __init__(self, width: int, height: int = 0, order: str = "used", *, ascii_only: bool = False) -> None:
        self.width, self.height, self.order, self.ascii_only = width, height, order, ascii_only

    def bar(self, part: int | None, whole: int) -> Bar:
        return Bar(part, whole, ascii_only=self.ascii_only)

    def render(self, overview: Overview, now: float | None = None) -> Group:
        said: list[list[Piece]] = [[(line, "red")] for line in warnings(overview)]
        lines = [self.heading(overview, now), [], *self.gpus(overview.gpus), []]
        room = max(2, self.height - len(lines) - len(said)) if self.height else 0
        lines += [*self.containers(overview.containers, room, now), *said]
        return Group(*map(text_of, lines[: self.height or None]))

    def heading(self, overview: Overview, now: float | None) -> list[Piece]:
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        counts = f"{counted(len(overview.gpus), 'GPU')}, {counted(len(overview.containers), 'container')}"
        return [(f"runai-ctl top  {clock}  {counts}, sizes in MiB, by {self.order}", "")]

    def gpus(self, gpus: list[GpuUse]) -> list[list[Piece]]:
        """The first ones, where there are more than half of the screen has lines for."""
        made = Table(
            *(number("GPU"), Column("NAME", least=6), Column("USE", bar=True, least=LEAST_BAR, rank=1)),
            *(number("USED"), number("PROMISED", rank=2), number("FREE"), number("MEMORY")),
        )
        most = max(1, self.height // 2 - 3) if self.height else len(gpus)
        shown = gpus if len(gpus) <= most else gpus[: most - 1]
        for use in shown:
            made.add(
                *(str(use.gpu.index), printable(use.gpu.name), self.bar(use.used, use.gpu.total)),
                *(mib(size) for size in (use.used, use.promised, use.free, use.gpu.total)),
            )
        rest = counted(len(gpus) - len(shown), "more GPU")
        return [*made.lines(self.width), *([[(f"… {rest}", "")]] if len(gpus) > len(shown) else [])]

    def containers(self, containers: list[Container], room: int, now: float | None) -> list[list[Piece]]:
        """Those that find ROOM, a heading included, and how many don't; processes where all containers find some."""
        if not containers:
            return [[("No container has a share.", "")]]
        made = Table(
            *(Column("NAME", least=6), Column("ID"), number("GPU"), Column("USE", bar=True, least=LEAST_BAR, rank=1)),
            *(number("USED"), number("SHARE"), number("PEAK", rank=3), number("SINCE", rank=2)),
        )
        ordered = sorted(containers, key=ORDERS[self.order])
        spare = room - 1 - sum(len(container.figures) for container in containers) if room else UNLIMITED
        begins = []  # which line is a container's first
        for container in ordered:
            begins.append(len(made.rows))
            add_shares(made, container, self.bar, now)
            spare -= add_processes(made, container.processes, min(spare, MOST_PROCESSES + 1))
        if not room or len(made.rows) < room:
            return made.lines(self.width)
        del made.rows[max(0, room - 2) :]  # of ROOM the heading takes one line, what is said below another
        left = sum(begin >= len(made.rows) for begin in begins)
        what = counted(left, "more container") if left else "more GPUs of the last one"
        return [*made.lines(self.width), [(f"… {what} (a higher terminal shows that)", "")]]


def add_shares(made: Table, container: Container, bar: Callable[[int | None, int], Bar], now: float | None) -> None:
    for place, (gpu, figure) in enumerate(zip(container.gpus, container.figures, strict=True)):
        first: list[Cell] = [printable(container.name or UNKNOWN), container.id[:SHORT]]
        made.add(
            *(first if place == 0 else ("", "")),
            *(str(gpu), bar(figure.used, figure.share)),
            *(mib(size) for size in (figure.used, figure.share, figure.peak)),
            age(container.since, now) if place == 0 else "",
        )


def add_processes(made: Table, processes: list[Process], most: int) -> int:
    """The first ones and how many there are more, on MOST lines; on how many it is."""
    if not processes or most < 1:
        return 0
    shown = processes if len(processes) <= most else processes[: most - 1]
    for process in shown:
        command, pid = f"  {printable(process.command or '?')}", str(process.pid or UNKNOWN)
        made.add(command, pid, str(process.gpu), "", mib(process.bytes), "", "", "", style=DIM)
    if len(processes) == len(shown):
        return len(shown)
    made.add(f"  … {len(processes) - len(shown)} more", "", "", "", "", "", "", "", style=DIM)
    return len(shown) + 1


def text_of(line: list[Piece]) -> Text:
    made = Text.assemble(*line, no_wrap=True, overflow="ellipsis")
    made.rstrip()
    return made


def counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def run_top(host: Host, console: Console, order: str, interval: float, *, once: bool) -> None:
    """Until interrupted or terminated, every INTERVAL seconds; ONCE: a screen, and no more."""
    ascii_only = not console.encoding.lower().startswith("utf")
    if once:
        console.print(Screen(console.width, 0, order, ascii_only=ascii_only).render(look(host, processes=True)))
        return
    # A terminal of another size is drawn on at once. The signal waits for sigtimedwait() and interrupts nothing else.
    resized = {signal.SIGWINCH}
    signal.pthread_sigmask(signal.SIG_BLOCK, resized)
    # Nothing refreshes by itself: a second thread would be in the way of the children that look() starts.
    with ended_in_order(), Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            overview = look(host, processes=True)
            screen = Screen(console.width, console.height, order, ascii_only=ascii_only)
            live.update(screen.render(overview), refresh=True)
            signal.sigtimedwait(resized, interval)
