"""What tests ask about the agents of containers, from outside: which process it is, what it counts, when it ends."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

from tests.docker.host import CUDASH, Container
from tests.programs.build import program

RAW = "/usr/local/bin/rawgpu"
FILL = (RAW, "fill", "64")
FILLED = "15 allocations, 1006632960 bytes, status 0x51\n"
"""What FILL says under a share of 1 GiB, of which a part is kept for a context."""

FIRST_GPU = 16  # bytes: magic and sequence come before (libvgpu/agent_page.h)


def tools() -> tuple[str, ...]:
    """The volumes with the programs that ask for memory: by ioctls alone, and by CUDA."""
    return (f"--volume={program('rawgpu', '-static')}:{RAW}:ro", f"--volume={program('cudash')}:{CUDASH}:ro")


def agents(folder: Path) -> list[int]:
    """The agents whose container's grant is FOLDER, or lies in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if words[0] == b"runai-agent" and Path(words[1].decode()).is_relative_to(folder):
            found.append(int(path.parent.name))
    return found


def agent_of(container: Container) -> int:
    (agent,) = agents(container.grant)
    return agent


def used(container: Container) -> int:
    """Bytes that the agent counts on the first GPU."""
    page = (container.grant / "page").read_bytes()
    _, amount = struct.unpack_from("<QQ", page, FIRST_GPU)
    return int(amount)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.025)
    raise AssertionError("it never came to that")
