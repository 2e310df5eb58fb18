"""runai-ctl top: who uses the GPUs now, with bars, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from runai_runtime.containers import SHORT, Container
from runai_runtime.host import Host
from runai_runtime.overview import GpuUse, Overview, look
from runai_runtime.tables import UNKNOWN, age, mib, short, table, warnings

NAME_COLUMNS, OTHER_COLUMNS = 16, 62  # what a line of a container takes besides its bar
LONGEST_BAR = 60
MOST_PROCESSES = 8  # of a container on a screen, those that hold most

ORDERS: dict[str, Callable[[Container], tuple[float, str]]] = {
    "used": lambda container: (-sum(figure.used or 0 for figure in container.figures), container.title),
    "share": lambda container: (-sum(figure.share for figure in container.figures), container.title),
    "peak": lambda container: (-sum(figure.peak or 0 for figure in container.figures), container.title),
    "since": lambda container: (container.since, container.title),
    "name": lambda container: (0, container.title),
}
"""What containers can be sorted by: the largest first, the oldest first, or by name."""


def bar(part: int | None, whole: int, width: int, *, ascii_only: bool) -> Text:
    """PART of WHOLE; what is there and what is left differ in shape too, for terminals without colours."""
    if part is None or whole <= 0:
        return Text(UNKNOWN)
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    ratio = min(1.0, part / whole)
    filled = round(ratio * width) or int(part > 0)
    colour = "red" if ratio > 0.95 else "yellow" if ratio > 0.8 else "green"
    return Text.assemble((full * filled, colour), (empty * (width - filled), "bright_black"))


class Screen:
    """Overviews as screens of WIDTH columns, of HEIGHT lines at most (0: as many as it takes)."""

    def __init__(self, width: int, height: int = 0, order: str = "used", *, ascii_only: bool = False) -> None:
        self.width, self.height, self.order, self.ascii_only = width, height, order, ascii_only
        self.bar_width = max(8, min(LONGEST_BAR, width - OTHER_COLUMNS - NAME_COLUMNS))

    def bar(self, part: int | None, whole: int) -> Text:
        return bar(part, whole, self.bar_width, ascii_only=self.ascii_only)

    def render(self, overview: Overview, now: float | None = None) -> RenderableType:
        said = [Text(line, style="red") for line in warnings(overview)]
        top: list[RenderableType] = [self.heading(overview, now), Text(), self.gpus(overview.gpus), Text()]
        used = len(overview.gpus) + 5 + len(said)  # lines: with the containers' heading
        room = max(3, self.height - used) if self.height else 0
        return Group(*top, *self.containers(overview.containers, room, now), *said)

    def heading(self, overview: Overview, now: float | None) -> Text:
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        counts = f"{counted(len(overview.gpus), 'GPU')}, {counted(len(overview.containers), 'container')}"
        return Text(f"runai-ctl top  {clock}  {counts}, sizes in MiB, by {self.order}", no_wrap=True)

    def gpus(self, gpus: list[GpuUse]) -> RenderableType:
        made = table(">GPU", "~NAME", "USE", ">USED", ">PROMISED", ">FREE", ">MEMORY")
        for use in gpus:
            made.add_row(
                *(str(use.gpu.index), short(use.gpu.name), self.bar(use.used, use.gpu.total)),
                *(mib(size) for size in (use.used, use.promised, use.free, use.gpu.total)),
            )
        return made

    def containers(self, containers: list[Container], room: int, now: float | None) -> list[RenderableType]:
        """Those that find ROOM, and how many don't."""
        made = table("~NAME", "ID", ">GPU", "USE", ">USED", ">SHARE", ">PEAK", ">SINCE")
        lines, left = 0, sorted(containers, key=ORDERS[self.order])
        while left and (not room or lines + lines_of(left[0]) <= room - (len(left) > 1)):
            container = left.pop(0)
            lines += lines_of(container)
            for place, (gpu, figure) in enumerate(zip(container.gpus, container.figures, strict=True)):
                made.add_row(
                    *((short(container.name or UNKNOWN), container.id[:SHORT]) if place == 0 else ("", "")),
                    *(str(gpu), self.bar(figure.used, figure.share)),
                    *(mib(size) for size in (figure.used, figure.share, figure.peak)),
                    age(container.since, now) if place == 0 else "",
                )
            for process in container.processes[:MOST_PROCESSES]:
                command = short("  " + (process.command or "?"))
                pid = str(process.pid or UNKNOWN)
                made.add_row(command, pid, str(process.gpu), "", mib(process.bytes), style="bright_black")
            if len(container.processes) > MOST_PROCESSES:
                hidden = len(container.processes) - MOST_PROCESSES
                made.add_row(f"  … {hidden} more", style="bright_black")
        if not containers:
            return [Text("No container has a share.")]
        rest = f"… {counted(len(left), 'more container')}; a higher terminal, or runai-ctl status, shows them"
        return [made, *([Text(rest, no_wrap=True)] if left else [])]


def lines_of(container: Container) -> int:
    return len(container.figures) + min(len(container.processes), MOST_PROCESSES + 1)


def counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def run_top(host: Host, console: Console, order: str, interval: float, *, once: bool) -> None:
    """Until interrupted, every INTERVAL seconds; ONCE: a screen, and no more."""
    ascii_only = not console.encoding.lower().startswith("utf")
    if once:
        console.print(Screen(console.width, 0, order, ascii_only=ascii_only).render(look(host, processes=True)))
        return
    # Nothing refreshes by itself: a second thread would be in the way of the children that look() starts.
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            screen = Screen(console.width, console.height, order, ascii_only=ascii_only)
            live.update(screen.render(look(host, processes=True)), refresh=True)
            time.sleep(interval)
