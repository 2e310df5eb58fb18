"""Tables without lines, laid out for the width of a terminal: columns that find no room are left out, the least
important first, and only then is a cell cut short.

Not rich's tables: those take 120 ms of processor time for 64 containers, after 50 ms to import, and `runai-ctl status`
has to be there in 300 ms on a busy host.
"""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Bar(Protocol):
        """A cell that is as wide as its column."""

        def pieces(self, width: int) -> list[Piece]: ...

    Piece = tuple[str, str]  # text, and its style as rich names it, "" for none
    Cell = str | Bar

GAP = 2  # columns of a terminal between two of ours
UNLIMITED = 1 << 20  # a width for what nobody reads on a terminal: nothing is left out or cut there
LONGEST_BAR = 60


class Column:
    """RIGHT: of numbers. LEAST: the columns that a cell may be cut to, None for never. RANK: left out before those of a
    lower one, 0 for never. BAR: of bars, which take what the others leave, from LEAST on.
    """

    __slots__ = ("bar", "least", "name", "rank", "right")

    def __init__(
        self, name: str, *, right: bool = False, least: int | None = None, rank: int = 0, bar: bool = False
    ) -> None:
        self.name, self.right, self.least, self.rank, self.bar = name, right, least, rank, bar


class Table:
    """Columns, and rows of as many cells. Cells are printable() text."""

    def __init__(self, *columns: Column) -> None:
        self.columns = columns
        self.rows: list[tuple[Sequence[Cell], str]] = []

    def add(self, *cells: Cell, style: str = "") -> None:
        self.rows.append((cells, style))

    def widths(self, width: int) -> list[int]:
        """Of each column, for a table that isn't wider than WIDTH unless even that is too narrow; 0: left out."""
        found = [
            column.least or 0
            if column.bar
            else max(
                cell_len(cell) for cell in (column.name, *(row[at] for row, _ in self.rows)) if isinstance(cell, str)
            )
            for at, column in enumerate(self.columns)
        ]

        def excess() -> int:
            shown = [size for size in found if size]
            return sum(shown) + GAP * (len(shown) - 1) - width

        for at in sorted(range(len(found)), key=lambda at: -self.columns[at].rank):
            column = self.columns[at]
            if excess() > 0 and column.least is not None:
                found[at] = max(min(column.least, found[at]), found[at] - excess())
            if excess() > 0 and column.rank:
                found[at] = 0
        for at, column in enumerate(self.columns):
            if column.bar and found[at]:
                found[at] = min(LONGEST_BAR, found[at] + max(0, -excess()))
        return found

    def left_out(self, width: int) -> list[str]:
        """The names of the columns that find no room."""
        return [column.name for column, size in zip(self.columns, self.widths(width), strict=True) if not size]

    def lines(self, width: int = UNLIMITED) -> list[list[Piece]]:
        """The heading and the rows."""
        widths = self.widths(width)
        return [
            self._line(cells, style, widths) for cells, style in (([c.name for c in self.columns], "bold"), *self.rows)
        ]

    def _line(self, cells: Sequence[Cell], style: str, widths: list[int]) -> list[Piece]:
        line: list[Piece] = []
        for column, cell, width in zip(self.columns, cells, widths, strict=True):
            if not width:
                continue
            if line:
                line.append((" " * GAP, ""))
            line += [(fitted(cell, width, right=column.right), style)] if isinstance(cell, str) else cell.pieces(width)
        return line


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """TEXT in WIDTH columns of a terminal."""
    size = cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…"
    blank = " " * (width - size)
    return blank + text if right else text + blank


def printable(text: str) -> str:
    """TEXT of an engine or a container, which may hold anything, as one line that does nothing to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def plain(line: Sequence[Piece]) -> str:
    return "".join(text for text, _ in line).rstrip()
