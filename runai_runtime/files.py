"""Files of ours on the host: read in few calls, and written so that whoever reads them finds them whole."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

SMALL = 8192  # bytes: more than almost every grant has


def read_small(path: str) -> str:
    """The text of a file, which is no link: a host may have hundreds. Raises OSError and ValueError."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        text = part = os.read(file, SMALL)
        while len(part) == SMALL:
            part = os.read(file, SMALL)
            text += part
        return text.decode()
    finally:
        os.close(file)


def write_whole(path: Path, text: str, mode: int, owner: tuple[int, int] | None = None) -> None:
    """TEXT in the file at PATH, by one rename, with MODE and the user and group of OWNER. Its folder is made if need
    be. Raises OSError, and leaves what was there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(text.encode())
        temporary.chmod(mode)
        if owner:
            os.chown(temporary, *owner)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
