"""What the simulated libraries export, and the constants that their header shares with the resource manager."""

from __future__ import annotations

import ctypes
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simgpu import abi
from tests.simgpu.build import NOT_SUPPORTED, SOURCE, exports, headers
from tests.simgpu.host import SimHost


def symbols(library: Path) -> dict[str, int]:
    """Exported names and their values, by pyelftools."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    with library.open("rb") as file:
        table = elffile.ELFFile(file).get_section_by_name(".dynsym")
        return {s.name: s["st_value"] for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"}


def in_child(check: Callable[[], None]) -> None:
    """A driver that is loaded stays, and whoever asks for it by its SONAME afterwards gets that one."""
    child = os.fork()
    if child == 0:
        try:
            check()
        except BaseException:  # noqa: BLE001 - this process must end here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(("name", "file"), [("cuda", "libcuda.so.1"), ("nvml", "libnvidia-ml.so.1")])
def test_every_name_of_the_lists_is_exported_and_no_other(shared_host: SimHost, name: str, file: str) -> None:
    assert set(symbols(shared_host.lib / file)) == set(exports(name))


def test_the_lists_hold_what_the_headers_declare() -> None:
    cuda = re.findall(r"CUresult\s+CUDAAPI\s+(cu[A-Z]\w+)\s*\(", (headers() / "cuda.h").read_text())
    nvml = re.findall(r"DECLDIR\s+\*?\s*(nvml\w+)\s*\(", (headers() / "nvml.h").read_text())
    assert len(cuda) > 400 and set(cuda) <= set(exports("cuda"))
    assert len(nvml) > 300 and set(nvml) <= set(exports("nvml"))


def test_what_is_not_simulated_says_so(shared_host: SimHost) -> None:
    def check() -> None:
        assert ctypes.CDLL(str(shared_host.lib / "libcuda.so.1")).cuGraphCreate() == NOT_SUPPORTED["cuda"]
        assert ctypes.CDLL(str(shared_host.lib / "libnvidia-ml.so.1")).nvmlEventSetCreate() == NOT_SUPPORTED["nvml"]

    in_child(check)


def test_get_proc_address(shared_host: SimHost) -> None:
    in_child(lambda: check_get_proc_address(shared_host.lib / "libcuda.so.1"))


def check_get_proc_address(library: Path) -> None:
    cuda, at = ctypes.CDLL(str(library)), symbols(library)
    function, status = ctypes.c_void_p(), ctypes.c_int()
    names = {value: key for key, value in at.items()}
    base = ctypes.cast(cuda.cuInit, ctypes.c_void_p).value or 0

    def resolve(name: str, version: int, flags: int = 0) -> tuple[int, int | None, int]:
        result = cuda.cuGetProcAddress_v2(
            name.encode(), ctypes.byref(function), version, ctypes.c_uint64(flags), ctypes.byref(status)
        )
        offset = (function.value or 0) - base + at["cuInit"] if function.value else None
        return result, offset, status.value

    assert names[at["cuInit"]] == "cuInit"
    assert resolve("cuMemAlloc", 13000) == (0, at["cuMemAlloc_v2"], 0)
    assert resolve("cuMemAlloc", 2000) == (0, at["cuMemAlloc"], 0)
    assert resolve("cuCtxCreate", 12050) == (0, at["cuCtxCreate_v4"], 0)
    assert resolve("cuMemcpyHtoD", 12000, 2) == (0, at["cuMemcpyHtoD_v2_ptds"], 0)
    assert resolve("cuMemAllocAsync", 12000, 2) == (0, at["cuMemAllocAsync_ptsz"], 0)
    assert resolve("cuMemAllocAsync", 11000) == (500, None, 2)
    assert resolve("cuNoSuchThing", 13000) == (500, None, 1)


def test_the_header_mirrors_the_table() -> None:
    defines = re.findall(
        r"^#define (\w+) (0x[0-9A-F]+)$", (SOURCE / "common" / "abi.h").read_text(), re.MULTILINE | re.IGNORECASE
    )
    assert len(defines) > 15
    assert {name: int(value, 16) for name, value in defines} == {name: getattr(abi, name) for name, _ in defines}
