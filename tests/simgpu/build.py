"""Builds the user side: libcuda, libnvidia-ml, one more driver library, and nvidia-smi.

Compiled with zig cc against glibc 2.17, so that the files run in any image. What the lists of exports name and
nobody simulates becomes a weak stub that answers "not supported".
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .config import DRIVER_VERSION

SOURCE = Path(__file__).parent / "driver"
TARGET = "x86_64-linux-gnu.2.17"
# At -O0 zig's UBSan aborts the program; by default it writes no build id. NVML deprecates what tools still use.
FLAGS = (
    "-std=gnu17 -D_GNU_SOURCE -O2 -g0 -fPIC -pthread -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes "
    "-Wmissing-declarations -Wold-style-definition -Wformat=2 -Wundef -Wwrite-strings -Wcast-align -Wpointer-arith "
    "-Wvla -Wconversion -Wsign-conversion -Wimplicit-fallthrough -Wnull-dereference -Wno-deprecated-declarations"
).split()
LINK = "-Wl,--build-id=sha1 -Wl,-z,now -s".split()
CUDA_FLAGS = ("-D__CUDA_API_VERSION_INTERNAL",)
"""cuda.h then declares every version of a function under its own name."""
NVML_FLAGS = ("-DNVML_NO_UNVERSIONED_FUNC_DEFS",)
NOT_SUPPORTED = {"cuda": 801, "nvml": 3}
PREFIXES = {"cuda": "cu", "nvml": "nvml"}


@dataclass(frozen=True)
class Release:
    """A driver of another age: functions that it lacks, and some that it has beyond the lists of exports (stubs)."""

    without: frozenset[str] = frozenset()
    extra: frozenset[str] = frozenset()


THIS_RELEASE = Release()


def build(out: Path, release: Release = THIS_RELEASE) -> Path:
    """Put lib/ and bin/ into `out`, unless they are there as they would be built now. Returns `out`."""
    out.mkdir(parents=True, exist_ok=True)
    stamp, wanted = out / "stamp", source_hash(release)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            with tempfile.TemporaryDirectory(prefix="simgpu-build-") as work:
                _build_all(out, Path(work), release)
            stamp.write_text(wanted)
    return out


def headers() -> Path:
    """The folder of cuda.h and nvml.h: that of the NVIDIA wheels. Raises RuntimeError where they are missing."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for folder in sorted(Path(place).glob("*/include"), reverse=True):
            if (folder / "cuda.h").exists() and (folder / "nvml.h").exists():
                return folder
    raise RuntimeError("simgpu: cuda.h and nvml.h not found; pip install nvidia-cuda-runtime nvidia-nvml-dev")


def exports(name: str, release: Release = THIS_RELEASE) -> list[str]:
    """What a library exports, by its list: "cuda" or "nvml"."""
    names = (SOURCE / f"{name}.exports").read_text().split()
    extra = {symbol for symbol in release.extra if symbol.startswith(PREFIXES[name])}
    return sorted({*names, *extra} - release.without)


def source_hash(release: Release = THIS_RELEASE) -> str:
    """Of everything that the user side is made from."""
    digest = hashlib.sha256(repr((sorted(release.without), sorted(release.extra))).encode())
    include = headers()
    for path in [*sorted(SOURCE.rglob("*")), Path(__file__), include / "cuda.h", include / "nvml.h"]:
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _build_all(out: Path, work: Path, release: Release) -> None:
    _write_stubs("cuda", work, release)
    _write_stubs("nvml", work, release)
    (work / "proc_table.h").write_text(_proc_table(release))
    (work / "error_names.h").write_text(_error_names())
    for folder in ("lib", "bin"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir()
    common = [SOURCE / "common" / "rm.c"]
    cuda = [*sorted((SOURCE / "cuda").glob("*.c")), *common, work / "cuda_stubs.c"]
    nvml = [*sorted((SOURCE / "nvml").glob("*.c")), *common, work / "nvml_stubs.c"]
    smi = sorted((SOURCE / "smi").glob("*.c"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [
            pool.submit(_library, out / "lib", work, "libcuda", cuda, CUDA_FLAGS, "cuda"),
            pool.submit(_library, out / "lib", work, "libnvidia-ml", nvml, NVML_FLAGS, "nvml"),
            pool.submit(_library, out / "lib", work, "libnvidia-ptxjitcompiler", [SOURCE / "ptxjitcompiler.c"], ()),
            pool.submit(_compile, [*smi, "-ldl", "-o", out / "bin" / "nvidia-smi"], work, NVML_FLAGS),
        ]
        for part in parts:
            part.result()


def _library(
    folder: Path, work: Path, stem: str, sources: list[Path], flags: Iterable[str], export_list: str | None = None
) -> None:
    soname, file = f"{stem}.so.1", f"{stem}.so.{DRIVER_VERSION}"
    arguments: list[str | Path] = [
        *sources, "-shared", "-ldl", "-Wl,-Bsymbolic", "-Wl,--no-undefined", f"-Wl,-soname,{soname}",
        "-o", folder / file,
    ]  # fmt: skip
    if export_list:
        arguments.append(f"-Wl,--version-script={work / export_list}.map")
    _compile(arguments, work, flags)
    (folder / soname).symlink_to(file)
    (folder / f"{stem}.so").symlink_to(soname)


def _compile(arguments: Iterable[str | Path], work: Path, flags: Iterable[str]) -> None:
    include = ["-I", str(SOURCE / "common"), "-I", str(work), "-isystem", str(headers())]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGET, *FLAGS, *flags, *include, *LINK]
    # Started where its own files lie below, zig knows them by another path than the wheel's build did, and builds its
    # own libraries once more.
    result = subprocess.run([*command, *map(str, arguments)], cwd="/", capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"simgpu: the user side does not compile:\n{result.stderr}")


def _write_stubs(name: str, work: Path, release: Release) -> None:
    names = exports(name, release)
    lines = [f"static int not_supported(void) {{ return {NOT_SUPPORTED[name]}; }}"]
    lines += [f'extern int {stub}(void) __attribute__((weak, alias("not_supported")));' for stub in names]
    (work / f"{name}_stubs.c").write_text("\n".join(lines) + "\n")
    (work / f"{name}.map").write_text("{ global: " + "; ".join(names) + "; local: *; };\n")


def _proc_table(release: Release) -> str:
    """Entries of cuGetProcAddress. The k-th version of a name in the typedefs is the k-th symbol of that name."""
    known = set(exports("cuda", release))
    versions: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for header in sorted(headers().glob("cuda*Typedefs.h")):
        pattern = r"\(CUDAAPI \*PFN_(cu[A-Z]\w+?)_v(\d+)(_ptsz|_ptds)?\)"
        for name, version, variant in re.findall(pattern, header.read_text()):
            versions[name].add((int(version), variant))
    lines = []
    for name, found in sorted(versions.items()):
        symbols = [name, *(f"{name}_v{number}" for number in range(2, 10))]
        symbols = [symbol for symbol in symbols if symbol in known]
        plain = sorted(version for version, variant in found if not variant)
        symbol_of = dict(zip(plain, symbols, strict=False))
        for version, variant in sorted(found):
            base = max((v for v in symbol_of if v <= version), default=None)
            symbol = symbol_of[base] + variant if base is not None else ""
            if symbol in known:
                lines.append(f"ENTRY({name}, {version}, {int(bool(variant))}, {symbol})")
    return "\n".join(lines) + "\n"


def _error_names() -> str:
    text = (headers() / "cuda.h").read_text()
    names = re.findall(r"^\s+(CUDA_(?:SUCCESS|ERROR_\w+))\s*=\s*\d+", text, re.MULTILINE)
    return "".join(f'{{ {name}, "{name}" }},\n' for name in names)
