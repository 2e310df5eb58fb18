"""README.md and docs/*.md as a person reads them: what is typed, what is shown, what is mentioned, what leads where.

The pages' convention: in a block (indented by four, or fenced) a line that a person types begins with `$ `, and goes on
in the next one after a backslash. What follows it is what is printed then. A block without such a line is a file or a
picture. Capitals (IMAGE, CONTAINER) are to be filled in by the reader.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).parents[1]
README = TOP / "README.md"
PAGES = [README, *sorted((TOP / "docs").glob("*.md"))]
PROMPT = "$ "

PROGRAMS = frozenset(
    "docker runai-docker runai-ctl runai-runtime dev podman ctr runc crun systemctl journalctl sudo apt apt-get dpkg "
    "pip pipx python python3 pytest git cd ln rm cat curl nvidia-smi nvidia-ctk nvidia-modprobe lslocks man".split()
)
"""What a line or a code span begins with that is a command."""


@dataclass
class Typed:
    """A command of a page, and the lines that the page shows for it."""

    page: Path
    line: int
    command: str
    shown: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(TOP)}:{self.line}"


@dataclass
class Block:
    """The lines of a block, without what makes it one, and the number of the first."""

    line: int
    lines: list[str]


def split(page: Path) -> tuple[list[Block], str]:
    """The blocks of a page, and its text without them."""
    blocks: list[Block] = []
    text: list[str] = []
    fence, block, before = "", None, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r" *(```+|~~~+)", line)
        indented = line.startswith("    ") and (block is not None or not before.strip())
        if not fence and (mark or (indented and block is None)):
            block = Block(number + bool(mark), [])
            blocks.append(block)
            fence = mark[1] if mark else ""
        elif fence and mark and mark[1] == fence:
            fence, block = "", None
        elif block and not (fence or indented or not line.strip()):
            block = None
        if block and not mark:
            block.lines.append(line)
        elif not block:
            text.append("" if mark else line)
        before = line
    for block in blocks:  # of a list, they are indented by more
        block.lines = textwrap.dedent("\n".join(block.lines)).split("\n")
    return blocks, "\n".join(text)


def typed(page: Path) -> Iterator[Typed]:
    """What a person types by that page, in its order."""
    for block in split(page)[0]:
        found: Typed | None = None
        goes_on = False
        for number, line in enumerate(block.lines, block.line):
            if goes_on and found:
                found.command += " " + line.strip().removesuffix("\\").rstrip()
                goes_on = line.endswith("\\")
            elif line.startswith(PROMPT):
                if found:
                    yield found
                found = Typed(page, number, line.removeprefix(PROMPT).removesuffix("\\").rstrip())
                goes_on = line.endswith("\\")
            elif found and line.strip():
                found.shown.append(line)
        if found:
            yield found


def without_prompt(page: Path) -> Iterator[tuple[int, str]]:
    """Lines that look like something to type, and don't say so: number and line. A block with arrows is a picture."""
    for block in split(page)[0]:
        if re.search("[►▼◄]", "".join(block.lines)):
            continue
        for number, line in enumerate(block.lines, block.line):
            if line.startswith(PROMPT):
                break  # what follows is printed
            if program_of(line.removeprefix("# ")):
                yield number, line


def program_of(line: str) -> str:
    """The program that a line or a code span starts, by its name; "" if it is no command."""
    name = Path(line.split(maxsplit=1)[0]).name if line.strip() else ""
    return name if name in PROGRAMS else ""


def mentioned(page: Path) -> list[str]:
    """The code spans of a page that are commands of more than one word."""
    spans = re.findall(r"`([^`]+)`", re.sub(r"\n(?=\S)", " ", split(page)[1]))
    return [span for span in spans if program_of(span) and len(span.split()) > 1]


def links(page: Path) -> list[str]:
    """Where a page leads to by relative links."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", split(page)[1]) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """Its headings, as GitHub makes anchors of them."""
    heads = re.findall(r"^#+ +(.+)$", split(page)[1], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
