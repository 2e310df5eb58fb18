"""The libraries and programs for aarch64, as ./dev build --arch aarch64 makes them: looked at, and run as far as that
can be done without such a machine, by qemu's user mode and a glibc for it.

No GPU stands behind them: the library behind ours is a stub that answers by its arguments. (On an aarch64 machine the
same tests run without qemu.)
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runai_runtime.dynsym import hide
from runai_runtime.elf import read_library
from runai_runtime.errors import RefusalError
from runai_runtime.fit import fit_to_driver
from runai_runtime.host import Host
from runai_runtime.verify import TABLES, check_glibc, check_pages, check_processor, checks, refuse_faults, table, verify
from tests.docker.host import NATIVE as HERE
from tests.programs.build import ZIG_FOLDER, tools

TOP = Path(__file__).parents[2]
NATIVE = TOP / "build/aarch64/runai_runtime/native"
SOURCE = Path(__file__).with_name("native")
LIBVGPU = TOP / "libvgpu"

CUDA = "libcuda.so.1"
IS_NATIVE = os.uname().machine == "aarch64"
GLIBC = Path("/lib" if IS_NATIVE else "/usr/aarch64-linux-gnu/lib")
GLIBC_TARGET = "aarch64-linux-gnu.2.17"
STATIC_TARGET = "aarch64-linux-musl"

# What the stub does as the driver would: what our own functions ask for.
AS_DRIVER = {
    *("cuGetProcAddress_v2", "cuCtxGetCurrent", "cuCtxGetDevice", "cuDeviceGetUuid_v2", "cuMemAlloc_v2"),
    "cuMemFree_v2",
}


def zig(target: str, *arguments: str | Path) -> None:
    compiler, _ = tools()
    flags = ("-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror")
    done = subprocess.run(
        [compiler, "cc", "-target", target, *flags, *map(str, arguments)],
        cwd=ZIG_FOLDER,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def answering(soname: str) -> dict[str, tuple[int, str]]:
    """The functions of one of our libraries that the stub answers by their arguments: number and policy."""
    numbered = enumerate(table(soname).items())
    return {name: (number, policy) for number, (name, policy) in numbered if name not in AS_DRIVER}


def functions_h(soname: str) -> Path:
    """The folder of a header with these functions, as the C files here include it. It is the same each time, so that
    zig finds what it compiled the last time.
    """
    folder = TOP / "build/aarch64-tests" / soname
    folder.mkdir(parents=True, exist_ok=True)
    functions = answering(soname).items()
    lines = (f"FUNCTION({number}, {policy}, {name})\n" for name, (number, policy) in functions)
    (folder / "functions.h").write_text("".join(lines))
    return folder


def stub(path: Path, headers: Path, soname: str) -> None:
    own = f'-DOWN_PATH="/.runai/real/{soname}"'
    kind = ("-DCUDA",) if soname == CUDA else ()
    link = ("-shared", "-fPIC", "-Wl,-Bsymbolic", "-Wl,--build-id=sha1", "-ldl")
    zig(GLIBC_TARGET, own, *kind, f"-I{headers}", f"-I{SOURCE}", SOURCE / "real_stub.c", *link, "-o", path)


class Machine:
    """A root file system with a glibc for aarch64 and stubs where the driver's own libraries are in a container."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        (self.root / ".runai/real").mkdir(parents=True)
        (self.root / ".runai/account").mkdir()
        (self.root / "lib").symlink_to(GLIBC)
        self.programs: dict[str, Path] = {}
        for soname in TABLES:
            headers = functions_h(soname)
            stub(self.root / ".runai/real" / soname, headers, soname)
            self.programs[soname] = folder / f"registers-{soname}"
            zig(GLIBC_TARGET, f"-I{headers}", SOURCE / "registers_test.c", "-ldl", "-o", self.programs[soname])
        self.programs["share"] = folder / "share"
        zig(GLIBC_TARGET, SOURCE / "share_test.c", "-ldl", "-o", self.programs["share"])

    def run(self, program: str, *arguments: str | Path) -> list[str]:
        """The lines that a program prints."""
        return run(self.programs[program], *arguments, root=self.root).stdout.splitlines()


def run(
    program: Path, *arguments: str | Path, root: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """A program for aarch64, which opens files below ROOT where they are there."""
    emulator = ["/usr/bin/qemu-aarch64-static", *(["-L", str(root)] if root else [])]
    command = [*([] if IS_NATIVE else emulator), str(program), *map(str, arguments)]
    if IS_NATIVE and root:
        command = ["/usr/sbin/chroot", str(root), *command]
    done = subprocess.run(command, capture_output=True, text=True, env={}, timeout=200, check=False)
    assert not check or done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("aarch64"))


# ---- what was built --------------------------------------------------------------------------------------------


def test_the_wheel() -> None:
    (wheel,) = (TOP / "dist/aarch64").glob("*.whl")
    assert wheel.name.endswith("-py3-none-manylinux2014_aarch64.whl")
    with zipfile.ZipFile(wheel) as file:
        names = {name.rpartition("native/")[2] for name in file.namelist() if "/native/" in name}
        assert "Tag: py3-none-manylinux2014_aarch64" in read_metadata(file)
    assert names == {path.relative_to(HERE).as_posix() for path in HERE.rglob("*") if path.is_file()}


def read_metadata(wheel: zipfile.ZipFile) -> list[str]:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/WHEEL"))
    return wheel.read(name).decode().splitlines()


def test_the_libraries() -> None:
    reports = verify(str(NATIVE), {}, strict=True, processor="aarch64")
    assert [report.faults() for report in reports] == [[], []]


def test_both_processors_have_the_same_exports() -> None:
    for soname in TABLES:
        assert set(read_library(str(NATIVE / soname)).exports) == set(read_library(str(HERE / soname)).exports)


def test_the_programs() -> None:
    for name in ("runai-hook", "runai-launch"):
        listing = subprocess.run(["readelf", "-hlW", NATIVE / name], capture_output=True, text=True, check=True).stdout
        assert "Machine:                           AArch64" in listing
        assert "INTERP" not in listing
        aligned = [line.split()[-1] for line in listing.splitlines() if line.split()[:1] == ["LOAD"]]
        assert set(aligned) == {"0x10000"}  # kernels for arm have pages of up to 64 KiB


def test_the_probe() -> None:
    probe = read_library(str(NATIVE / "runai-probe"))
    made = (check_glibc(probe), check_processor(probe, "aarch64"), check_pages(probe, "aarch64"))
    assert [check.fault for check in made] == ["", "", ""]


def test_the_hook_knows_the_folders_of_arms_loaders() -> None:
    words = (NATIVE / "runai-hook").read_bytes().split(b"\0")
    assert {b"atomics", b"aarch64", b"/usr/lib/aarch64-linux-gnu"} <= set(words)
    assert not {b"haswell", b"/usr/lib/x86_64-linux-gnu"} & set(words)


def test_a_host_of_another_processor_refuses_them(tmp_path: Path) -> None:
    if IS_NATIVE:
        other = tmp_path
        for soname in TABLES:
            data = bytearray((HERE / soname).read_bytes())
            data[18:20] = (62).to_bytes(2, "little")
            (other / soname).write_bytes(data)
    else:
        other = NATIVE
    with pytest.raises(RefusalError, match="processor: must be"):
        refuse_faults(str(other))


def test_libraries_for_small_pages_alone(tmp_path: Path) -> None:
    """A kernel with pages of 64 KiB loads no segment that is aligned to less, and protects whole pages."""
    for option, pages in (("max-page-size=4096", 4096), ("common-page-size=4096", 4096)):
        library = tmp_path / "library.so"
        source = tmp_path / "library.c"
        source.write_text("extern int other; int *cuPointer = &other; int **cuInit(void) { return &cuPointer; }")
        zig(GLIBC_TARGET, "-shared", "-fPIC", "-Wl,-z,relro", "-Wl,-z,now", f"-Wl,-z,{option}", source, "-o", library)
        found = next(check for check in checks(CUDA, read_library(str(library)), "aarch64") if check.name == "pages")
        assert (found.found, found.fault) == (f"up to {pages >> 10} KiB", "must be good for 64 KiB")


# ---- what runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soname", TABLES)
def test_every_function_hands_its_arguments_on(machine: Machine, soname: str) -> None:
    """Eight whole numbers, eight with a point and two on the stack; and the loader finds each function in ours."""
    assert machine.run(soname, NATIVE / soname) == [f"{len(answering(soname))} functions"]


def test_the_share(machine: Machine) -> None:
    runai = machine.root / ".runai"
    uuid = "GPU-" + "-".join("1" * length for length in (8, 4, 4, 4, 12))
    (runai / "limits").write_text(f"{uuid} {3 << 30} 0\n")
    (runai / "account/page").write_bytes(bytes(4 << 20))
    assert machine.run("share", NATIVE / CUDA) == ["3 GiB, then 2"] * 2
    (runai / "limits").unlink()
    assert machine.run("share", NATIVE / CUDA)[0].startswith("0 GiB, then ")  # fails closed


def test_a_copy_fitted_to_a_driver(machine: Machine, tmp_path: Path) -> None:
    gone = {"cuMemAllocAsync", "cuLaunchKernel"}
    real = machine.root / ".runai/real" / CUDA
    whole = real.read_bytes()
    exports = read_library(str(real)).exports
    host = Host("", {"runtime": "", "hook": "", "libvgpu": str(NATIVE), "state": str(tmp_path / "state")})
    real.write_bytes(hide(whole, [exports[name] for name in gone]))
    try:
        fitted = fit_to_driver(host, {CUDA: str(real)})[CUDA]
        said = machine.run(CUDA, fitted, *sorted(gone), "cuInit")
    finally:
        real.write_bytes(whole)
    assert said[-4:] == [
        *(f"{name} is NULL" for name in sorted(gone)),
        "cuInit is there",
        f"{len(answering(CUDA))} functions",
    ]
    assert {line.split()[0] for line in said[:-4]} == gone


Build = Callable[[tuple[str, ...]], Path]


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("static")

    def static(sources: tuple[str, ...]) -> Path:
        program = folder / Path(sources[0]).stem
        if not program.exists():
            paths = [SOURCE / sources[0], *(LIBVGPU / name for name in sources[1:])]
            folders = ("-iquote", LIBVGPU, "-iquote", SOURCE)
            zig(STATIC_TARGET, "-static", "-Wl,--strip-debug", *folders, *paths, "-o", program)
        return program

    return static


ACCOUNT = ("account_test.c", "account.c", "identity.c")
TABLES_TEST = ("tables_test.c", "cuda/map.c", "share_limits.c")


@pytest.mark.parametrize(("test", "rounds"), [("one_process", 1), ("all_slots_taken", 1), ("hostile_page", 3)])
def test_account(static: Build, test: str, rounds: int) -> None:
    """Not those of several processes: in qemu's /proc/self/stat (7.2) a child has its parent's start time, and in /proc
    its own, so that to each of them the others are dead.
    """
    run(static(ACCOUNT), test, str(rounds))


def test_tables(static: Build) -> None:
    run(static(TABLES_TEST), "20000")


def test_the_hook_says_what_is_wrong() -> None:
    done = run(NATIVE / "runai-hook", "stage", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("runai: the hook was started in a way it doesn't know")
    done = run(NATIVE / "runai-hook", "prestart", "/nowhere", check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"runai: the state directory /nowhere can't be opened, .*\n", done.stderr)
    assert run(NATIVE / "runai-hook", "poststop", "/nowhere").stderr == ""


def test_the_probe_says_that_there_is_no_driver(machine: Machine) -> None:
    said = json.loads(run(NATIVE / "runai-probe", str(1 << 20), root=machine.root).stdout)
    assert (said["call"], "libcuda.so.1" in said["error"]) == ("dlopen", True)


def test_the_launcher_hands_on(tmp_path: Path) -> None:
    """To programs of this machine: what they are is the kernel's to say."""
    program = tmp_path / "program"
    program.write_text('#!\n# runtime=/bin/echo\nprint("python")\n')
    assert run(NATIVE / "runai-launch", program, "state", "one").stdout == "state one\n"
    assert run(NATIVE / "runai-launch", program, "create", "one").stdout == "python\n"
