"""Compile the test programs: for glibc 2.17, so that they run in every image that has a glibc at all.

The driver's libraries are linked by SONAME alone, through a stub made from what the program asks for, so that a
program finds in a container whatever libcuda.so.1 is there.
"""

from __future__ import annotations

import functools
import hashlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

FOLDER = Path(__file__).parent
TOP = FOLDER.parents[1]
CACHE = TOP / "build/programs"
ABI = TOP / "tests/simgpu/driver/common/abi.h"
"""The driver's ioctls, for a program that makes them by hand."""
TARGET = "x86_64-linux-gnu.2.17"
FLAGS = ("-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror")
ZIG_FOLDER = "/"
"""Where zig is started. Where its own files lie below that, it knows them by another path than the wheel's build, and
builds its C library once more: a minute.
"""
LIBRARIES = {"cu": "libcuda.so.1", "nvml": "libnvidia-ml.so.1"}


@functools.cache
def tools() -> tuple[str, str]:
    """The zig program and the folder with cuda.h and nvml.h, as the build of the wheel finds them."""
    found = subprocess.run(
        [sys.executable, TOP / "cmake/locate.py"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    zig, headers = found.split(";")
    return zig, headers


def program(name: str, *flags: str) -> Path:
    """The path of the compiled tests/programs/NAME.c or NAME/*.c; compiled once for the same source, headers and flags.

    With `-static` among the flags the program holds a musl libc and no driver library; with `-dynamic` it is for
    musl's loader.
    """
    return _program(name, flags)


@functools.cache
def _program(name: str, flags: tuple[str, ...]) -> Path:
    zig, headers = tools()
    folder = FOLDER / name
    sources = sorted(folder.glob("*.c")) if folder.is_dir() else [FOLDER / f"{name}.c"]
    texts = [path.read_text() for path in (*sources, *sorted(folder.glob("*.h")), ABI, Path(__file__))]
    inputs = "\0".join([*texts, zig, headers, *flags])
    made = CACHE / f"{name}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"
    if made.exists():
        return made
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        compiled = _compile(sources, Path(scratch), flags)
        compiled.rename(made)
    return made


def _compile(sources: list[Path], scratch: Path, flags: tuple[str, ...]) -> Path:
    _, headers = tools()
    linked = scratch / "program"
    musl = not {"-static", "-dynamic"}.isdisjoint(flags)
    target = "x86_64-linux-musl" if musl else TARGET
    objects = []
    for source in sources:
        objects.append(scratch / f"{source.stem}.o")
        _zig(target, *FLAGS, *flags, "-iquote", ABI.parent, "-isystem", headers, "-c", source, "-o", objects[-1])
    stubs = [] if "-static" in flags else [_stub(scratch, *library) for library in _needed(objects).items()]
    # Lazy: a driver that lacks one function runs the programs that don't call it.
    kept = ["-Wl,--strip-debug"] if "-static" in flags else []  # as in CMakeLists.txt, so that zig has that C library
    _zig(target, *objects, *stubs, *flags, *kept, "-Wl,-z,lazy", "-ldl", "-lpthread", "-o", linked)
    return linked


def _zig(target: str, *args: str | Path) -> None:
    zig, _ = tools()
    done = subprocess.run(
        [zig, "cc", "-target", target, *map(str, args)], cwd=ZIG_FOLDER, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"zig cc {' '.join(map(str, args))}:\n{done.stderr}")


def _needed(objects: list[Path]) -> dict[str, set[str]]:
    """The driver's libraries that object files need, each with the functions that they ask for."""
    undefined: set[str] = set()
    for compiled in objects:
        symbols = ELFFile(io.BytesIO(compiled.read_bytes())).get_section_by_name(".symtab")
        assert isinstance(symbols, SymbolTableSection)
        undefined |= {symbol.name for symbol in symbols.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"}
    needed = {soname: {name for name in undefined if name.startswith(prefix)} for prefix, soname in LIBRARIES.items()}
    return {soname: names for soname, names in needed.items() if names}


def _stub(scratch: Path, soname: str, names: set[str]) -> Path:
    source, compiled, stub = scratch / f"{soname}.c", scratch / f"{soname}.o", scratch / soname
    source.write_text("".join(f"void {name}(void);\nvoid {name}(void) {{}}\n" for name in sorted(names)))
    _zig(TARGET, "-O2", "-fPIC", "-c", source, "-o", compiled)
    _zig(TARGET, "-shared", compiled, f"-Wl,-soname,{soname}", "-o", stub)
    return stub
