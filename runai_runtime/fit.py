"""Our libraries, fitted to a driver: the host's, or the libcuda that an image brings along.

Programs probe with dlsym for what a driver has, and our libraries export every function of their table. So a container
gets a copy in which each function that the real library lacks is a weak undefined symbol: dlsym answers NULL for it,
programs link against the copy, and a program that needs the function fails to link as it should. A strong undefined
symbol would break every link. Nothing but those entries of .dynsym changes; they stay in the hash table, where glibc
and musl take an undefined symbol without a value for none.

A copy is named after its own content. Containers share copies, and an image's library can say anything of itself, its
build id too: so nothing that it says names a copy.
"""

from __future__ import annotations

import hashlib
import io
import os

from runai_runtime.dynsym import Export, Symbols, hide, read_symbols
from runai_runtime.errors import RefusalError, reason
from runai_runtime.host import Host

MOST_COPIES = 256  # with those for the host's driver: 90 MiB
NAME_LENGTH = 40  # of a copy's folder: as much of a SHA-256 as git has of a SHA-1
AGAIN = "install runai-runtime again"


def fit_to_driver(host: Host, drivers: dict[str, str]) -> dict[str, str]:
    """Make a fitted copy for each of DRIVERS (SONAME: the driver's file); their paths by SONAME.

    A copy lies in FITTED/HASH and is never changed in place: containers have it mapped. Raises RefusalError when the
    driver's library or ours can't be read, or the copy not be written.
    """
    from runai_runtime.elf import parse, read_library

    paths = {}
    for soname, driver in drivers.items():
        source = os.path.join(host.libvgpu, soname)
        data = read_ours(source)
        ours, real = parse(io.BytesIO(data), source), read_library(driver)
        if ours.soname != soname:
            raise RefusalError(f"our {source} has the SONAME {ours.soname or 'none'}; {AGAIN}")
        if ours.machine != real.machine:
            raise RefusalError(f"our {source} is for another processor than the driver's {driver}; {AGAIN}")
        paths[soname] = keep(host, soname, fitted(data, ours.exports, real.exports))
    return paths


def forget_copies(host: Host, kept: dict[str, str]) -> None:
    """Remove the copies for drivers that are gone, and for images' own. A container that has one keeps it: what is
    mounted stays; one that is just being made with one is stopped by the hook, which finds it gone.
    """
    import shutil  # not for a container's start

    folders = {os.path.dirname(path) for path in kept.values()}
    for entry in os.scandir(host.fitted):
        if len(entry.name) == NAME_LENGTH and entry.is_dir(follow_symlinks=False) and entry.path not in folders:
            shutil.rmtree(entry.path, ignore_errors=True)


def fit_to_image(host: Host, soname: str, real: Symbols) -> str:
    """The path of our library SONAME, fitted to one of an image's; "" if that is for another processor, or the host has
    very many copies already.
    """
    source = os.path.join(host.libvgpu, soname)
    data = read_ours(source)
    try:
        ours = read_symbols(io.BytesIO(data))
    except ValueError as error:
        raise RefusalError(f"our {source} is no undamaged 64-bit shared library ({error}); {AGAIN}") from error
    if ours.machine != real.machine:
        return ""
    data = fitted(data, ours.exports, real.exports)
    return keep(host, soname, data) if has_room(host, soname, data) else ""


def has_room(host: Host, soname: str, data: bytes) -> bool:
    """Whether DATA is kept already, or few enough copies are. A container can have another libcuda at each start, and
    every one would leave a copy.
    """
    try:
        return os.path.exists(place(host, soname, data)) or len(os.listdir(host.fitted)) < MOST_COPIES
    except OSError:
        return True  # which keep() tells


def read_ours(source: str) -> bytes:
    try:
        with open(source, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise RefusalError(f"our {source} is missing on this host; {AGAIN}") from error
    except OSError as error:
        raise RefusalError(f"our {source} can't be read: {reason(error)}; {AGAIN}") from error


def fitted(data: bytes, ours: dict[str, Export], real: dict[str, Export]) -> bytes:
    """DATA, which exports OURS, without the exports that are not in REAL."""
    return hide(data, [export for name, export in ours.items() if name not in real])


def place(host: Host, soname: str, data: bytes) -> str:
    return os.path.join(host.fitted, hashlib.sha256(data).hexdigest()[:NAME_LENGTH], soname)


def keep(host: Host, soname: str, data: bytes) -> str:
    """The path of a file SONAME that holds DATA, written in one step; one that holds it already stays as it is."""
    path = place(host, soname, data)
    try:
        with open(path, "rb") as file:
            if file.read() == data:
                return path
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
    return path
