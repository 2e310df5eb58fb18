"""Our libraries, fitted to the host's driver.

Programs probe with dlsym for what a driver has, and our libraries export every function of their table. So a container
gets a copy in which each function that the host's real library lacks is a weak undefined symbol: dlsym answers NULL for
it, programs link against the copy, and a program that needs the function fails to link as it should. A strong undefined
symbol would break every link. Nothing but those entries of .dynsym changes; they stay in the hash table, where glibc
and musl take an undefined symbol without a value for none.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct

from runai_runtime.elf import Library, parse, read_library
from runai_runtime.errors import RefusalError, reason
from runai_runtime.host import Host

# Elf64_Sym (gABI, "Symbol Table"), without st_name: st_info, st_other, st_shndx, st_value, st_size.
SYMBOL = struct.Struct("<BBHQQ")
NAME_SIZE = 4
STB_WEAK, SHN_UNDEF = 2, 0


def fit_to_driver(host: Host, drivers: dict[str, str]) -> dict[str, str]:
    """Make a fitted copy for each of DRIVERS (SONAME: the driver's file); their paths by SONAME.

    A copy lies in FITTED/DRIVER-OURS, by the build ids of both, and is never changed in place: containers have
    it mapped. Raises RefusalError when the driver's library or ours can't be read, or the copy not be written.
    """
    return {soname: fit_one(host, soname, path) for soname, path in drivers.items()}


def fit_one(host: Host, soname: str, driver: str) -> str:
    data, ours = read_ours(os.path.join(host.libvgpu, soname), soname)
    real = read_library(driver)
    path = os.path.join(host.fitted, f"{identity(real)}-{identity(ours)}", soname)
    keep(path, fitted(data, ours, real))
    return path


def read_ours(source: str, soname: str) -> tuple[bytes, Library]:
    """One of our libraries, as it lies on the host and as it reads."""
    try:
        with open(source, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise RefusalError(f"our {source} is missing on this host; install runai-runtime again") from error
    except OSError as error:
        raise RefusalError(f"our {source} can't be read: {reason(error)}; install runai-runtime again") from error
    ours = parse(io.BytesIO(data), source)
    if ours.soname != soname:
        raise RefusalError(f"our {source} has the SONAME {ours.soname or 'none'}; install runai-runtime again")
    return data, ours


def fitted(data: bytes, ours: Library, real: Library) -> bytes:
    """DATA, which is OURS, without the exports that REAL lacks."""
    copy = bytearray(data)
    for name, export in ours.exports.items():
        if name not in real.exports:
            at = export.entry + NAME_SIZE
            info, other, *_ = SYMBOL.unpack_from(copy, at)
            SYMBOL.pack_into(copy, at, STB_WEAK << 4 | info & 15, other, SHN_UNDEF, 0, 0)
    return bytes(copy)


def identity(library: Library) -> str:
    """The build id; for a library without one, a hash of what fitting looks at."""
    names = "\n".join(sorted(library.exports))
    return library.build_id or hashlib.sha256(names.encode("utf-8", "replace")).hexdigest()[:40]


def keep(path: str, data: bytes) -> None:
    """DATA at PATH, in one step; a file that holds it already stays the file that it is."""
    try:
        with open(path, "rb") as file:
            if file.read() == data:
                return
    except OSError:
        pass
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(temporary, "wb") as file:
            os.fchmod(file.fileno(), 0o444)
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise RefusalError(f"{path} can't be written: {reason(error)}; make room there") from error
