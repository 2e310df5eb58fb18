"""An image for one program of ours, made on the spot: the program, with the host's loader and C library for it and for
the driver's libraries. Those come into the container as into any other.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
from collections.abc import Iterable
from typing import IO, Any

from elftools.elf.elffile import ELFFile

from runai_runtime.doctor.finding import Unknown
from runai_runtime.elf import FAULTS, read_library
from runai_runtime.errors import RefusalError
from runai_runtime.scan import loader_libraries

GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")
BESIDE = "libgcc_s.so.1"  # which glibc itself loads to end a thread
FOLDERS = ("dev", "etc", "proc", "sys", "tmp")
DRIVERS = ("libcuda", "libnvidia")


def write_image(stream: IO[bytes], program: str, drivers: Iterable[str]) -> None:
    """A tar for docker import, with PROGRAM (a path) as /NAME. DRIVERS: the paths of libraries that will be in the
    container. Raises Unknown where the host's C library can't be found.
    """
    files = {f"/{os.path.basename(program)}": program, loader_of(program): loader_of(program)}
    files |= {path: path for path in needed([*GLIBC, BESIDE], drivers, known_libraries())}
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for folder in sorted(folders_of(files)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for target, source in files.items():
            with open(source, "rb") as file:
                entry = tarfile.TarInfo(target.lstrip("/"))
                entry.mode, entry.size = 0o755, os.fstat(file.fileno()).st_size
                tar.addfile(entry, file)


def folders_of(files: Iterable[str]) -> set[str]:
    """Those of FILES (absolute paths) and those above them, without a slash in front; and what each image has."""
    found = set(FOLDERS)
    for path in files:
        parts = path.strip("/").split("/")[:-1]
        found.update("/".join(parts[: count + 1]) for count in range(len(parts)))
    return found


def loader_of(program: str) -> str:
    """The path of the loader that PROGRAM asks for."""
    try:
        with open(program, "rb") as file:
            segments: Iterable[Any] = ELFFile(file).iter_segments()
            return next(str(one.get_interp_name()) for one in segments if one["p_type"] == "PT_INTERP")
    except (*FAULTS, StopIteration) as error:
        raise Unknown(f"{program} can't be read ({error or type(error).__name__})") from error


def known_libraries() -> dict[str, str]:
    """The host's 64-bit libraries by name, as its loader finds them."""
    try:
        libraries = loader_libraries()
    except (OSError, subprocess.SubprocessError) as error:
        raise Unknown(f"ldconfig -p, which tells where this host's libraries are, failed ({error})") from error
    return dict(reversed(libraries))  # of two with one name the first counts


def needed(names: Iterable[str], drivers: Iterable[str], known: dict[str, str]) -> list[str]:
    """The paths of NAMES among KNOWN libraries and of all that they and DRIVERS need, the driver's own left out."""
    if GLIBC[0] not in known:
        raise Unknown(f"this host's loader doesn't know {GLIBC[0]}")
    waiting, paths = [*names, *(name for path in drivers for name in needs(path))], {}
    while waiting:
        name = waiting.pop()
        if name in known and name not in paths and not name.startswith(DRIVERS):
            paths[name] = known[name]
            waiting += needs(known[name])
    return sorted(paths.values())


def needs(path: str) -> list[str]:
    with contextlib.suppress(RefusalError):
        return read_library(path).needed
    return []
