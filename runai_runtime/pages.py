"""What containers hold, as it is counted in pages: those of the agents (libvgpu/agent_page.h) and the accounts of
libvgpu (libvgpu/account_page.h), whose layouts these are. Both are little-endian.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field

GPUS = 16  # ACCOUNT_GPUS: as many as a container can have

# struct agent_page
MAGIC = b"RAIPage1"
PAGE = 65536
PROCESSES = 2048
FIRST_GPU = 16  # behind magic and sequence
PROCESS_COUNT = FIRST_GPU + 16 * GPUS
DEVICE = PROCESS_COUNT + 8 + 16 * PROCESSES
COUNTED = DEVICE + 8 * GPUS
PEAK = COUNTED + 8
REFUSED = PEAK + 8 * GPUS

# struct account_page
GRANULE_SHIFT, TOTAL_SHIFT, HELD_SHIFT = 21, 40, 30
SLOTS = 1024
SLOT = struct.Struct(f"<3Q{GPUS}Q{2 * GPUS}Q")
FIRST_SLOT = 8 + 8 * GPUS


@dataclass
class Figure:
    """A container on one GPU, in bytes. None: nobody counts that."""

    share: int
    used: int | None = None
    peak: int | None = None
    refused: int | None = None  # requests for memory that found no room in the share


@dataclass
class Use:
    """What one process holds on one GPU: PID is of the pid namespace NAMESPACE (inode), 0 for the container's own."""

    pid: int
    gpu: int  # its place in the grant
    bytes: int
    namespace: int = 0


@dataclass
class Counted:
    figures: list[Figure] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


def read_agent_page(path: str, gpus: int) -> Counted | None:
    """What the agent counts of a container with so many GPUS. None where there is no page of an agent."""
    try:
        page = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        for _ in range(3):  # the agent may be writing its list
            content = os.pread(page, PAGE, 0)
            sequence = content[8:16]
            if sequence == os.pread(page, 8, 8) and not word_at(sequence, 0) & 1:
                break
    except OSError:
        return None
    finally:
        os.close(page)
    return parse_agent_page(content, gpus)


def parse_agent_page(page: bytes, gpus: int) -> Counted | None:
    if len(page) != PAGE or page[:8] != MAGIC:
        return None
    words = struct.unpack_from(f"<{2 * gpus}Q", page, FIRST_GPU)
    figures = [Figure(share, used) for share, used in zip(words[::2], words[1::2], strict=True)]
    if word_at(page, COUNTED) == 1:  # an older agent has nothing there
        for gpu, figure in enumerate(figures):
            figure.peak, figure.refused = word_at(page, PEAK + 8 * gpu), word_at(page, REFUSED + 8 * gpu)
    count = min(word_at(page, PROCESS_COUNT), PROCESSES)
    entries = struct.iter_unpack("<IIQ", page[PROCESS_COUNT + 8 : PROCESS_COUNT + 8 + 16 * count])
    return Counted(figures, [Use(*entry) for entry in entries])


def word_at(page: bytes, offset: int) -> int:
    return int.from_bytes(page[offset : offset + 8], "little")


def read_account(pid: int) -> bytes | None:
    """As much as is in use of the account of the container whose first process PID is.

    It lies in the container alone, which may put there what it likes: no link is followed, and as what lies there may
    never answer, this is for an Aside.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    folders: list[int] = []
    try:
        folders.append(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        for name in (".runai", "account"):
            folders.append(os.open(name, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=folders[-1]))
        folders.append(os.open("page", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags, dir_fd=folders[-1]))
        if not stat.S_ISREG(os.fstat(folders[-1]).st_mode):
            return None
        head = os.pread(folders[-1], FIRST_SLOT, 0)
        return head + os.pread(folders[-1], min(word_at(head, 0), SLOTS) * SLOT.size, FIRST_SLOT)
    except OSError:
        return None
    finally:
        for folder in folders:
            os.close(folder)


def parse_account(page: bytes, shares: list[int]) -> Counted | None:
    """What libvgpu counts of a container with SHARES, in bytes. Used includes what was left by processes that were
    killed, until the container's next program needs it.
    """
    count = min(word_at(page, 0), SLOTS)
    if len(page) != FIRST_SLOT + count * SLOT.size:
        return None
    figures = [
        Figure(share, word_at(page, 8 + 8 * gpu) >> TOTAL_SHIFT << GRANULE_SHIFT) for gpu, share in enumerate(shares)
    ]
    uses = []
    for owner, namespace, _, *words in SLOT.iter_unpack(page[FIRST_SLOT:]):
        held = words[GPUS + 1 :: 2]  # behind what is aside; each intent stands before what is held
        uses += [
            Use(owner >> 32, gpu, held[gpu] >> HELD_SHIFT << GRANULE_SHIFT, namespace)
            for gpu in range(len(shares))
            if owner and held[gpu] >> HELD_SHIFT
        ]
    return Counted(figures, uses)
