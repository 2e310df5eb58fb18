"""The terminal that runai-ctl prints on, if it is one."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from runai_runtime.columns import UNLIMITED, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import NoReturn

    from rich.console import Console

    from runai_runtime.columns import Piece

PIPED = 240  # columns of what rich prints where there is no terminal
SGR = {"bold": "1", "red": "31"}  # ECMA-48, of the styles that as_text() knows


def console() -> Console:
    """For stdout. rich itself leaves colours out where that is no terminal or NO_COLOR is set."""
    from rich.console import Console

    return Console(highlight=False, width=PIPED if is_piped() else None)


def is_piped() -> bool:
    """Whether nothing says how wide lines may be, as for who reads them by a program."""
    return not sys.stdout.isatty() and "COLUMNS" not in os.environ


def width() -> int:
    import shutil

    return UNLIMITED if is_piped() else shutil.get_terminal_size().columns


def as_text(lines: Iterable[list[Piece]]) -> str:
    """LINES for stdout, each in the style of its beginning: without rich, which takes long to import."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    found = []
    for line in lines:
        style = SGR.get(line[0][1], "") if line and coloured else ""
        text = plain(line)
        found.append(f"\x1b[{style}m{text}\x1b[0m\n" if style else f"{text}\n")
    encoding = sys.stdout.encoding or "utf-8"
    return "".join(found).encode(encoding, "replace").decode(encoding)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end this as Ctrl-C does, by an exception: what was changed is put back. One that is ignored
    (nohup) stays so.
    """
    import signal

    process = os.getpid()

    def stop(number: int, _frame: object) -> NoReturn:
        if os.getpid() != process:  # a fork, which has nothing to put back
            os._exit(128 + number)
        for one in numbers:  # another one doesn't disturb what puts things back
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def undisturbed() -> Iterator[None]:
    """SIGTERM and SIGHUP do nothing meanwhile: for what puts things back."""
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
