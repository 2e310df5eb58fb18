"""A file system with one file, of which no byte ever comes: python -m tests.unit.agent.silent FOLDER."""

from __future__ import annotations

import errno
import signal
import stat
import sys
from typing import Any

import mfusepy


class Silent(mfusepy.Operations):  # type: ignore[misc]  # the package has no types
    use_ns = True

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path not in ("/", "/file"):
            raise mfusepy.FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFDIR | 0o755} if path == "/" else {"st_mode": stat.S_IFREG | 0o444, "st_size": 4096}

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        signal.pause()
        return bytes(size)


if __name__ == "__main__":
    mfusepy.FUSE(Silent(), sys.argv[1], foreground=True, nothreads=True)
