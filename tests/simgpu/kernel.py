"""The kernel side: a FUSE file system whose files stand in for the NVIDIA device nodes.

One thread answers everything: mfusepy does an ioctl in 25 to 30 µs that way, and in 57 with threads.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import mfusepy

from . import abi
from .call import Call
from .caller_memory import CallerMemory
from .config import HostConfig
from .escapes import Escapes
from .mig import CAP_MODE
from .processes import Process, process_of
from .resman import File, ResourceManager

STATE = ".state"
"""A file that tells what the device really gave, as JSON. It is read-only and in no listing of the folder."""
CAPS = "/nvidia-caps"
"""The folder of capability nodes."""
NODE_SIZE = 1 << 47
"""So that nvidia-uvm can be mapped anywhere, at an offset that is the address."""
DIRECTION_OUT, DIRECTION_IN = 0x80000000, 0x40000000
"""_IOC_READ: FUSE takes the message back to the caller. _IOC_WRITE: it brings the caller's."""


class DeviceNodes(mfusepy.Operations):  # type: ignore[misc]
    """The folder of device nodes."""

    use_ns = True

    def __init__(self, host: HostConfig) -> None:
        self.manager = ResourceManager(host)
        self.escapes = Escapes(self.manager)
        nodes = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{gpu.minor}" for gpu in host.gpus)]
        self._caps = {
            f"{CAPS}/nvidia-cap{minor}": f"nvidia-cap{minor}"
            for part in host.instances
            if part.instance is not None
            for minor in host.cap_minors(part.instance)
        }
        self._nodes = {f"/{name}": name for name in nodes} | self._caps
        self._files: dict[int, File | bytes] = {}
        self._next = 1

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """The folder, or a node that anyone may open."""
        if path in ("/", CAPS):
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path == f"/{STATE}":
            return {"st_mode": stat.S_IFREG | 0o444, "st_nlink": 1, "st_size": 0}
        if path not in self._nodes:
            raise mfusepy.FuseOSError(errno.ENOENT)
        mode = CAP_MODE if path in self._caps else 0o666
        return {"st_mode": stat.S_IFREG | mode, "st_nlink": 1, "st_size": NODE_SIZE if "uvm" in path else 0}

    def readdir(self, path: str, fh: int) -> list[str]:
        """The nodes' names."""
        if path == CAPS:
            return [".", "..", *self._caps.values()]
        here = [name for path, name in self._nodes.items() if path not in self._caps]
        return [".", "..", *here, *([CAPS.lstrip("/")] if self._caps else [])]

    def open(self, path: str, flags: int) -> int:
        """A new open file, which lives until its last descriptor is closed."""
        handle, self._next = self._next, self._next + 1
        if path == f"/{STATE}":
            self._files[handle] = json.dumps(self.state()).encode()
        else:
            self._files[handle] = File(self._nodes[path], None)
        return handle

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """The state as it was at open; zeroes for pages of nvidia-uvm that a mapping touches first."""
        file = self._files[fh]
        if isinstance(file, bytes):
            return file[offset : offset + size]
        return bytes(size) if "uvm" in path else b""

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """open(2) with O_TRUNC, as a shell's redirection does: nothing, as on a device."""
        return 0

    def release(self, path: str, fh: int) -> int:
        """The last descriptor is closed, in whatever process it was."""
        file = self._files.pop(fh)
        if isinstance(file, File):
            self.manager.close(file)
        return 0

    def ioctl(self, path: str, cmd: int, arg: Any, fh: int, flags: int, data: Any) -> int:
        """One call. FUSE brings and takes the message only for the directions that the request names."""
        file = self._files[fh]
        if not isinstance(file, File) or path in self._caps:
            return -errno.ENOTTY
        thread = mfusepy.fuse_get_context()[2]
        request = cmd & abi.REQUEST_MASK
        memory = CallerMemory(thread)
        try:
            size = self.escapes.message_size(file, request)
            # A uvm request is a bare number: FUSE knows no size for its message.
            brought, taken = (request >> 16 == size and cmd & bit for bit in (DIRECTION_IN, DIRECTION_OUT))
            message = bytearray(ctypes.string_at(data, size)) if brought else memory.read(arg or 0, size)
            self.escapes.run(request, Call(file, message, memory, lambda: process_of(thread), thread))
            if taken:
                ctypes.memmove(data, bytes(message), size)
            else:
                memory.write(arg or 0, message)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    def state(self) -> dict[str, Any]:
        """What the device gave, to whom (pids as this side sees them), and how often it was asked. Bytes."""
        return {"gpus": [_gpu_state(gpu) for gpu in self.manager.gpus], "calls": dict(self.escapes.counts)}


def _gpu_state(gpu: Any) -> dict[str, Any]:
    return {
        "index": gpu.config.index,
        "uuid": gpu.config.uuid,
        "total": gpu.config.total,
        "reserved": gpu.config.reserved,
        "used": gpu.used,
        "processes": [
            {"pid": owner.pid, "used": used, "listed": gpu.listed[owner], "alive": owner.alive}
            for owner, used in gpu.taken.items()
            if isinstance(owner, Process)
        ],
    }


def _end_with_input(main_thread: int) -> None:
    """End when whoever started this is gone: the pipe that is our input hangs up."""
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        while os.read(0, 1):
            pass
        signal.pthread_kill(main_thread, signal.SIGTERM)


def main() -> int:
    """Mount and answer until unmounted or told to end."""
    parser = argparse.ArgumentParser(description="kernel side of the simulated GPU host")
    parser.add_argument("folder", type=Path, help="where to mount the device nodes")
    parser.add_argument("--config", type=Path, help="JSON; default: one RTX 2080 Ti")
    options = parser.parse_args()
    host = HostConfig.parse(json.loads(options.config.read_text()) if options.config else None)
    threading.Thread(target=_end_with_input, args=(threading.get_ident(),), daemon=True).start()
    mfusepy.FUSE(
        DeviceNodes(host), str(options.folder), foreground=True, nothreads=True, allow_other=True,
        direct_io=True, fsname="simgpu",
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
