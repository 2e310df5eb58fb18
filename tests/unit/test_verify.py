"""What verification says of our libraries, of libraries that are wrong on purpose, and of a driver's symbols."""

from __future__ import annotations

import functools
import io
import json
import random
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from runai_runtime.configure import configure
from runai_runtime.ctl import app
from runai_runtime.elf import Library, parse, read_library
from runai_runtime.errors import RefusalError
from runai_runtime.verify import (
    ASIDE,
    INTERCEPTED,
    PASSES,
    TABLES,
    UNKNOWN,
    VERSION,
    checks,
    classify,
    looks_like_memory,
    refuse_faults,
    table,
    verify,
)
from tests.docker.host import NATIVE
from tests.unit.libraries import RIGHT, compiled, functions, linked, stub

CUDA = "libcuda.so.1"
REAL = f"/.runai/real/{CUDA}"


def test_the_libraries_of_the_wheel() -> None:
    reports = verify(str(NATIVE), {}, strict=True)
    assert [report.soname for report in reports] == list(TABLES)
    assert [report.faults() for report in reports] == [[], []]
    refuse_faults(str(NATIVE))


def test_the_table_comes_with_the_wheel() -> None:
    for soname, name in TABLES.items():
        text = (NATIVE / name / "functions.h").read_text()
        assert text.count("\nFUNCTION(") == len(table(soname)) > 400


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What libraries are linked from: an object with our exports, stubs of the real library and of glibcs."""
    folder = tmp_path_factory.mktemp("parts")
    compiled(folder / "ours.o", functions(table(CUDA)))
    compiled(folder / "more.o", "int cuExtra(void) { return 0; }")
    compiled(folder / "calls.o", "int shiny(void); int cuUses(void) { return shiny(); }")
    compiled(folder / "text.o", '__asm__(".text\\n.globl cuText\\ncuText: .quad cuInit\\n");')
    stub(folder / "real.so", ["unused"], REAL)
    stub(folder / "libm.so", ["unused"], "libm.so.6")
    for version in ("GLIBC_2.2.5", "GLIBC_2.9", "GLIBC_2.17", "GLIBC_2.18", "GLIBC_3.0", "GLIBC_PRIVATE", "OTHER_1.0"):
        stub(folder / f"{version}.so", ["shiny"], "libc.so.6", version)
    return folder


def faults(library: Path) -> list[str]:
    return [f"{check.name}: {check.fault}" for check in checks(CUDA, read_library(str(library))) if check.fault]


def made(parts: Path, tmp_path: Path, *more: str, without: tuple[str, ...] = (), soname: str = CUDA) -> Path:
    """A library that is right but for some arguments. A name of a file is one of PARTS."""
    given = ["real.so", "ours.o", *more]
    flags = [flag for flag in RIGHT if flag not in without]
    arguments = [argument if argument.startswith("-") else parts / argument for argument in given]
    return linked(tmp_path / "library.so", "-Wl,--no-as-needed", *flags, *arguments, soname=soname)


def test_a_right_library(parts: Path, tmp_path: Path) -> None:
    assert faults(made(parts, tmp_path)) == []


@pytest.mark.parametrize(
    ("more", "without", "fault"),
    [
        (("-Wl,-z,execstack",), (), "stack: must be not executable"),
        (("-Wl,-z,norelro",), (), "RELRO: must be full"),
        (("-Wl,-z,lazy",), ("-Wl,-z,now",), "RELRO: must be full"),
        ((), ("-Wl,-z,nodelete",), "dlclose: must be keeps it (NODELETE)"),
        (("-Wl,--build-id=none",), (), "build id: must be there"),
        (("more.o",), (), "exports: cuExtra too many"),
        (("libm.so",), (), "needed libraries: must not have libm.so.6"),
    ],
)
def test_a_wrong_library(
    parts: Path, tmp_path: Path, more: tuple[str, ...], without: tuple[str, ...], fault: str
) -> None:
    assert faults(made(parts, tmp_path, *more, without=without)) == [fault]


def test_another_processor(parts: Path, tmp_path: Path) -> None:
    library = made(parts, tmp_path)
    data = bytearray(library.read_bytes())
    for machine, found in ((183, "aarch64"), (243, "ELF machine 243")):
        data[18:20] = machine.to_bytes(2, "little")
        library.write_bytes(data)
        faulty = [check for check in checks(CUDA, read_library(str(library)), "x86_64") if check.fault]
        assert [(check.name, check.found, check.fault) for check in faulty] == [("processor", found, "must be x86_64")]


def test_a_wrong_name(parts: Path, tmp_path: Path) -> None:
    assert faults(made(parts, tmp_path, soname="libcuda.so.2")) == [f"SONAME: must be {CUDA}"]
    assert faults(made(parts, tmp_path, soname="")) == [f"SONAME: must be {CUDA}"]


def test_text_relocations(parts: Path, tmp_path: Path) -> None:
    found = faults(made(parts, tmp_path, "text.o", "-Wl,-z,notext"))
    assert found == ["exports: cuText too many", "text relocations: must be none"]


def test_exports_that_are_missing(parts: Path, tmp_path: Path) -> None:
    library = linked(tmp_path / "library.so", *RIGHT, "-Wl,--no-as-needed", parts / "real.so", soname=CUDA)
    names = sorted(table(CUDA))
    assert faults(library) == [f"exports: {', '.join(names[:3])} and {len(names) - 3} more missing"]


def test_the_real_library_comes_first(parts: Path, tmp_path: Path) -> None:
    arguments = ("-Wl,--no-as-needed", parts / "GLIBC_2.17.so", parts / "real.so", parts / "ours.o")
    assert faults(linked(tmp_path / "a.so", *RIGHT, *arguments, soname=CUDA)) == [
        f"needed libraries: must begin with {REAL}"
    ]
    assert faults(linked(tmp_path / "b.so", *RIGHT, parts / "ours.o", soname=CUDA)) == [
        f"needed libraries: must begin with {REAL}"
    ]


@pytest.mark.parametrize(
    ("version", "fault"),
    [
        ("GLIBC_2.2.5", None),
        ("GLIBC_2.9", None),  # a number, not a text: 9 is less than 17
        ("GLIBC_2.17", None),
        ("GLIBC_2.18", "glibc: must be 2.17 or older"),
        ("GLIBC_3.0", "glibc: must be 2.17 or older"),
        ("GLIBC_PRIVATE", "glibc: must be a version of glibc alone"),
        ("OTHER_1.0", "glibc: must be a version of glibc alone"),
    ],
)
def test_the_oldest_glibc(parts: Path, tmp_path: Path, version: str, fault: str | None) -> None:
    found = faults(made(parts, tmp_path, "calls.o", f"{version}.so"))
    assert found == ([fault] if fault else []) + ["exports: cuUses too many"]


def test_a_damaged_library_is_refused(parts: Path, tmp_path: Path) -> None:
    right = made(parts, tmp_path)
    for name, data in (("cut", right.read_bytes()[:5000]), ("empty", b""), ("text", b"#!/bin/sh\n" * 100)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RefusalError, match="no undamaged 64-bit shared library"):
            read_library(str(tmp_path / name))
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RefusalError, match="can't be read"):
            read_library(str(path))


def look(data: bytes) -> Library | None:
    """What the reader answers: a library, or one sentence. Anything else it raises fails the test."""
    try:
        return parse(io.BytesIO(data), "file")
    except RefusalError as refusal:
        sentence = str(refusal)
    assert sentence.startswith("file is no undamaged 64-bit shared library")
    assert "\n" not in sentence
    return None


@functools.cache
def small_library() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        glibc = stub(Path(folder, "glibc.so"), ["shiny"], "libc.so.6", "GLIBC_2.2.5")
        calls = compiled(Path(folder, "calls.o"), "int shiny(void); int cuUses(void) { return shiny(); }")
        return linked(Path(folder, "small.so"), "-s", "-Wl,--no-as-needed", *RIGHT, calls, glibc).read_bytes()


BRIEF = settings(deadline=timedelta(seconds=5))


@BRIEF
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"\x7fELF\x02\x01\x01" + data))
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert look(data) is None


@BRIEF
@given(st.integers(0, 2**32), st.sampled_from([b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8, b"\1"]))
def test_a_library_with_any_damage_can_be_read(seed: int, value: bytes) -> None:
    """Damage in the tables: headers at the front, section headers at the back."""
    data = bytearray(small_library())
    place = random.Random(seed)
    for _ in range(place.randrange(1, 4)):
        at = place.choice([place.randrange(len(data)), place.randrange(700), len(data) - 1 - place.randrange(900)])
        data[at : at + len(value)] = value[: len(data) - at]
    look(bytes(data))


# ---- against a driver ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a driver that lacks one function, and has three functions and a variable beyond our table."""
    folder = tmp_path_factory.mktemp("driver")
    names = [*(set(table(CUDA)) - {"cuMemAllocAsync"}), "cuMemBrandNewAlloc", "cuCtxCreate_v9", "cuFrobnicate"]
    source = functions(names) + "int cudbgVariable = 1; static int cuHidden(void) { return 1; }"
    linked(folder / CUDA, compiled(folder / "cuda.o", source), soname=CUDA)
    return folder


def test_a_driver_is_classified(driver: Path) -> None:
    symbols = classify(CUDA, str(driver / CUDA))
    policies = table(CUDA)
    assert symbols.kinds[INTERCEPTED] == sorted(
        name for name, policy in policies.items() if policy == "TAKE" and name != "cuMemAllocAsync"
    )
    assert symbols.kinds[ASIDE] == sorted(name for name, policy in policies.items() if policy == "ASIDE")
    assert len(symbols.kinds[PASSES]) == sum(policy == "PASS" for policy in policies.values())
    assert symbols.kinds["data"] == ["cudbgVariable"]
    assert symbols.kinds[UNKNOWN] == ["cuCtxCreate_v9", "cuFrobnicate", "cuMemBrandNewAlloc"]
    assert symbols.missing == ["cuMemAllocAsync"]
    assert symbols.suspects == ["cuCtxCreate_v9", "cuMemBrandNewAlloc"]


REAL_DRIVERS = sorted((Path(__file__).parent / "drivers").iterdir())


@pytest.mark.parametrize("release", REAL_DRIVERS, ids=lambda folder: folder.name)
def test_a_real_driver_has_no_unknown_function(release: Path, tmp_path: Path) -> None:
    """Lists of what real drivers export. Variables are the debugger's, which finds them in the driver's own library."""
    for soname in TABLES:
        names = set((release / f"{soname}.exports").read_text().split())
        variables = {name for name in names - set(table(soname)) if name.startswith("cudbg")}
        source = functions(names - variables) + "".join(f"int {name} = 1;\n" for name in variables)
        linked(tmp_path / soname, compiled(tmp_path / "driver.o", source), soname=soname)
        symbols = classify(soname, str(tmp_path / soname))
        assert (symbols.kinds[UNKNOWN], symbols.missing) == ([], [])
        assert sum(map(len, symbols.kinds.values())) == len(names)


def test_names_that_look_like_memory() -> None:
    """Each function that the table intercepts or watches would be noticed in a new version."""
    for soname in TABLES:
        policies = table(soname)
        for name, policy in policies.items():
            if policy != "PASS":
                newer = VERSION.sub("", name) + "_v9"
                assert looks_like_memory(newer, policies), newer
                assert looks_like_memory(f"{newer}_ptsz", policies), newer
    for name in (
        *("cuMemAllocSpecial", "cuMemPoolCreateOnNode", "cuSparseArrayCreate", "cuCreateHeap", "cuDeviceTotalMem_v3"),
        *("nvmlDeviceGetMemoryInfo_v3", "nvmlDeviceSetMemoryLimits_v1", "nvmlDeviceGetComputeRunningProcesses_v4"),
    ):
        assert looks_like_memory(name, {}), name
    for name in ("cuFrobnicate", "cuMemcpyAsync_v2", "cuStreamGetDevResource", "nvmlDeviceGetMemoryBusWidth"):
        assert not looks_like_memory(name, {}), name


# ---- the command -----------------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> tuple[int, str]:
    nowhere = ("--config", "/nowhere/config.json")
    done = CliRunner().invoke(app, ["verify", *nowhere, *map(str, arguments)], env={"NO_COLOR": "1"})
    return done.exit_code, done.output


def test_the_command(driver: Path) -> None:
    status, shown = command("--libraries", NATIVE, "--driver", driver)
    assert status == 0, shown
    assert "\x1b" not in shown
    lines = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert ["unknown", "cuMemBrandNewAlloc, which looks like device memory"] in lines
    assert ["unknown", "cuFrobnicate"] in lines
    assert ["missing", "1 functions of the table, which programs don't find either"] in lines
    assert "FAULT" not in shown


def test_strict(driver: Path) -> None:
    status, shown = command("--libraries", NATIVE, "--driver", driver, "--strict")
    assert status == 1
    faulty = [line for line in shown.splitlines() if line.startswith("FAULT")]
    assert [line.split()[2].rstrip(",") for line in faulty] == ["cuCtxCreate_v9", "cuMemBrandNewAlloc"]


def test_json(driver: Path, parts: Path, tmp_path: Path) -> None:
    status, shown = command("--libraries", NATIVE, "--driver", driver, "--format", "json")
    values = json.loads(shown)
    assert (status, values["ok"]) == (0, True)
    cuda, nvml = values["libraries"]
    assert (cuda["soname"], nvml["driver"]) == (CUDA, None)
    assert cuda["driver"]["suspects"] == ["cuCtxCreate_v9", "cuMemBrandNewAlloc"]
    assert {check["name"]: check["found"] for check in cuda["checks"]}["RELRO"] == "full"
    made(parts, tmp_path, "-Wl,-z,execstack").rename(tmp_path / CUDA)
    (tmp_path / "libnvidia-ml.so.1").write_bytes((NATIVE / "libnvidia-ml.so.1").read_bytes())
    status, shown = command("--libraries", tmp_path, "--driver", driver, "--format=json")
    values = json.loads(shown)
    assert (status, values["ok"]) == (1, False)
    assert values["libraries"][0]["faults"] == ["stack: must be not executable"]


def test_the_command_refuses_with_a_sentence(tmp_path: Path) -> None:
    status, shown = command("--libraries", tmp_path)
    assert (status, shown.count("\n")) == (1, 1)
    assert shown.startswith("runai-ctl: ")
    status, shown = command("--libraries", NATIVE, "--driver", tmp_path)
    assert (status, shown.count("\n")) == (1, 1)


def test_configure_refuses_a_damaged_library(parts: Path, tmp_path: Path) -> None:
    made(parts, tmp_path, "more.o").rename(tmp_path / CUDA)
    (tmp_path / "libnvidia-ml.so.1").write_bytes((NATIVE / "libnvidia-ml.so.1").read_bytes())
    config = {"runtime": "/bin/sh", "hook": "/bin/sh", "libvgpu": str(tmp_path), "state": str(tmp_path / "state")}
    with pytest.raises(RefusalError, match=r"cuExtra too many"):
        configure(config, tmp_path / "config.json", tmp_path / "program")
    assert not (tmp_path / "config.json").exists()
