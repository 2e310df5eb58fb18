"""Fitting: which symbols of a library are taken out of sight, and what the loader and the linker then say."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runai_runtime.dynsym import read_symbols
from runai_runtime.elf import parse, read_library
from runai_runtime.errors import RefusalError
from runai_runtime.fit import MOST_COPIES, fit_to_driver, fit_to_image, fitted
from runai_runtime.host import Host
from runai_runtime.verify import TABLES, table
from tests.docker.host import NATIVE
from tests.symbols import hidden_symbols
from tests.unit.libraries import RIGHT, compiled, functions, gcc, linked, stub

CUDA = "libcuda.so.1"
OURS = ("cuInit", "cuOld", "cuGone", "cuGoneToo", "cuMemAlloc_v2")
THEIRS = ("cuInit", "cuOld", "cuMemAlloc_v2", "cuNew")

# Prints the names that dlsym finds in the library.
PROBE = "import ctypes, sys; l = ctypes.CDLL(sys.argv[1]); print(*(n for n in sys.argv[2:] if hasattr(l, n)))"


def host_of(libvgpu: Path, state: Path) -> Host:
    return Host("", {"runtime": "", "hook": "", "libvgpu": str(libvgpu), "state": str(state)})


@pytest.fixture
def small(tmp_path: Path) -> tuple[Host, Path]:
    """A host with a small library of ours, and a driver's that lacks two of its functions and has one more."""
    driver = stub(tmp_path / "driver.so", THEIRS, str(tmp_path / "driver.so"))
    (tmp_path / "ours").mkdir()
    ours = compiled(tmp_path / "ours.o", functions(OURS))
    linked(tmp_path / "ours" / CUDA, *RIGHT, "-Wl,--no-as-needed", driver, ours, soname=CUDA)
    return host_of(tmp_path / "ours", tmp_path / "state"), driver


def test_libraries_of_images_without_end(small: tuple[Host, Path], tmp_path: Path) -> None:
    """A container that writes itself another libcuda before each start must not fill the host's disk."""
    host, driver = small
    with driver.open("rb") as file:
        symbols = read_symbols(file)
    first = fit_to_image(host, CUDA, symbols)
    for number in range(MOST_COPIES):
        (Path(host.fitted) / f"{number:040}").mkdir()
    assert fit_to_image(host, CUDA, symbols) == first != ""
    del symbols.exports["cuOld"]
    assert fit_to_image(host, CUDA, symbols) == ""
    assert len(list(Path(host.fitted).iterdir())) == MOST_COPIES + 1
    assert fit_to_driver(host, {CUDA: str(driver)})[CUDA] == first


def test_dlsym_answers_null(small: tuple[Host, Path]) -> None:
    host, driver = small
    path = Path(fit_to_driver(host, {CUDA: str(driver)})[CUDA])
    assert hidden_symbols(Path(host.libvgpu) / CUDA, path) == {"cuGone", "cuGoneToo"}
    done = subprocess.run([sys.executable, "-c", PROBE, path, *OURS, "cuNew"], capture_output=True, check=True)
    assert done.stdout.split() == [b"cuInit", b"cuOld", b"cuMemAlloc_v2", b"cuNew"]


GOLD = pytest.mark.may_skip("newer binutils come without gold")


@pytest.mark.parametrize("linker", ["bfd", pytest.param("gold", marks=GOLD)])
def test_linking(small: tuple[Host, Path], tmp_path: Path, linker: str) -> None:
    if not Path(f"/usr/bin/ld.{linker}").exists():
        pytest.skip(f"there is no ld.{linker}")
    host, driver = small
    path = fit_to_driver(host, {CUDA: str(driver)})[CUDA]
    flags = (f"-fuse-ld={linker}", "-Wl,--as-needed", f"-Wl,-rpath,{Path(path).parent}")
    for names, links in ((("cuInit", "cuOld"), True), (("cuInit", "cuGone"), False)):
        calls = " + ".join(f"{name}()" for name in names)
        source = "".join(f"int {name}(void);" for name in names) + f"int main(void) {{ return {calls}; }}"
        program = tmp_path / "program"
        program.unlink(missing_ok=True)
        try:
            gcc(*flags, compiled(tmp_path / "program.o", source), path, "-o", program)
        except subprocess.CalledProcessError:
            assert not links
            continue
        assert links
        assert read_library(str(program)).needed == [CUDA, "libc.so.6"]
        assert subprocess.run([program], check=False).returncode == 1  # 0 + 1: ours answer their numbers


def test_where_copies_lie(small: tuple[Host, Path], tmp_path: Path) -> None:
    host, driver = small
    path = fit_to_driver(host, {CUDA: str(driver)})[CUDA]
    assert path == f"{host.state}/libvgpu/{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:40]}/{CUDA}"
    inode = Path(path).stat().st_ino
    assert fit_to_driver(host, {CUDA: str(driver)})[CUDA] == path
    assert Path(path).stat().st_ino == inode
    other = stub(tmp_path / "other.so", (*THEIRS, "cuGone"), "other")
    assert fit_to_driver(host, {CUDA: str(other)})[CUDA] != path
    assert [file.name for file in Path(path).parent.iterdir()] == [CUDA]


def test_nothing_that_a_driver_says_names_a_copy(small: tuple[Host, Path], tmp_path: Path) -> None:
    """Two drivers with one build id, or none, of which one has less: each gets its own."""
    host, _ = small
    hidden = []
    for flag in ("-Wl,--build-id=0x1234", "-Wl,--build-id=none"):
        for names in (THEIRS, THEIRS[:-2]):
            driver = linked(tmp_path / "driver.so", flag, compiled(tmp_path / "driver.o", functions(names)))
            path = fit_to_driver(host, {CUDA: str(driver)})[CUDA]
            hidden.append(hidden_symbols(Path(host.libvgpu) / CUDA, Path(path)))
    assert hidden == [{"cuGone", "cuGoneToo"}, {"cuGone", "cuGoneToo", "cuMemAlloc_v2"}] * 2
    assert len(list(Path(host.state, "libvgpu").iterdir())) == 2


def test_a_damaged_copy_is_made_anew(small: tuple[Host, Path]) -> None:
    host, driver = small
    path = Path(fit_to_driver(host, {CUDA: str(driver)})[CUDA])
    right = path.read_bytes()
    path.unlink()
    path.write_bytes(right[:-1])
    assert fit_to_driver(host, {CUDA: str(driver)})[CUDA] == str(path)
    assert path.read_bytes() == right


def for_aarch64(library: Path) -> None:
    data = bytearray(library.read_bytes())
    data[18:20] = (183).to_bytes(2, "little")  # e_machine
    library.write_bytes(data)


def test_a_driver_for_another_processor(small: tuple[Host, Path]) -> None:
    host, driver = small
    for_aarch64(driver)
    with pytest.raises(RefusalError, match="for another processor"):
        fit_to_driver(host, {CUDA: str(driver)})
    with driver.open("rb") as file:
        assert fit_to_image(host, CUDA, read_symbols(file)) == ""


def test_an_image_gets_the_copy_that_a_host_with_its_driver_has(small: tuple[Host, Path]) -> None:
    host, driver = small
    with driver.open("rb") as file:
        path = fit_to_image(host, CUDA, read_symbols(file))
    assert path == fit_to_driver(host, {CUDA: str(driver)})[CUDA]


def test_what_cannot_be_fitted(small: tuple[Host, Path], tmp_path: Path) -> None:
    host, driver = small
    (tmp_path / "text").write_text("no library")
    with pytest.raises(RefusalError, match="text is no undamaged"):
        fit_to_driver(host, {CUDA: str(tmp_path / "text")})
    ours = Path(host.libvgpu) / CUDA
    data = ours.read_bytes()
    ours.write_bytes(data[: len(data) // 2])
    with pytest.raises(RefusalError, match="no undamaged"):
        fit_to_driver(host, {CUDA: str(driver)})
    ours.write_bytes(driver.read_bytes())
    with pytest.raises(RefusalError, match="SONAME"):
        fit_to_driver(host, {CUDA: str(driver)})
    ours.unlink()
    with pytest.raises(RefusalError, match="is missing"):
        fit_to_driver(host, {CUDA: str(driver)})
    ours.write_bytes(data)
    Path(host.state).write_text("a file")
    with pytest.raises(RefusalError, match="can't be written"):
        fit_to_driver(host, {CUDA: str(driver)})


@settings(max_examples=20)
@given(st.data())
def test_our_libraries_without_any_of_their_exports(data: st.DataObject) -> None:
    """Whatever the driver lacks, that and no other symbol goes, and the copy can be fitted again."""
    soname = data.draw(st.sampled_from(sorted(TABLES)))
    lacking = data.draw(st.sets(st.sampled_from(sorted(table(soname)))))
    original = (NATIVE / soname).read_bytes()
    ours = parse(io.BytesIO(original), soname)
    there = {name: export for name, export in ours.exports.items() if name not in lacking}
    copy = fitted(original, ours.exports, there)
    again = parse(io.BytesIO(copy), soname)
    assert set(again.exports) == set(ours.exports) - lacking
    assert (again.build_id, again.needed, again.versions) == (ours.build_id, ours.needed, ours.versions)
    assert len(copy) == len(original)
    assert fitted(copy, again.exports, there) == copy
