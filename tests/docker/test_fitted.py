"""Our libraries fitted to a driver that is older than our table in some functions, and newer in others."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from runai_runtime.configure import configure
from runai_runtime.host import read_host
from runai_runtime.inventory import read_inventory
from runai_runtime.verify import table
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import NATIVE, Runai, configuration
from tests.programs.build import program
from tests.simgpu.build import Release
from tests.simgpu.host import SimHost
from tests.symbols import hidden_symbols

OLDER = frozenset({"cuMemAllocAsync", "cuMemPoolCreate", "cuLaunchKernelEx", "nvmlDeviceGetGpuFabricInfoV"})
NEWER = frozenset({"cuMemBrandNewAlloc", "nvmlDeviceGetBrandNewMemoryInfo"})


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Iterator[Runai]:
    """A host whose driver lacks some functions of our table and has others beyond it, with an engine of its own."""
    top = folder / "f"
    with SimHost(top / "gpu-host", release=Release(without=OLDER, extra=NEWER)) as simhost:
        program = top / "runai-runtime"
        config = configuration(top, simhost)
        configure(config, top / "config.json", program)
        with Engine({"runai": program}) as engine:
            images.load(engine, images.BUSYBOX)
            images.load(engine, images.LINKER)
            yield Runai(engine, simhost, config, program)


def copies(runai: Runai) -> dict[str, Path]:
    host = read_host(str(runai.program.with_name("config.json")))
    return {soname: Path(path) for soname, path in read_inventory(host).ours.items()}


def probe(runai: Runai, *names: str) -> dict[str, str]:
    done = runai.run("/probe", *names, options=(f"--volume={program('probe')}:/probe:ro",))
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in done.stdout.splitlines()}


def test_what_an_older_driver_lacks_is_not_there(fitted: Runai) -> None:
    present = ("cuInit", "cuMemAlloc_v2", "cuLaunchKernel", "nvmlInit_v2", "nvmlDeviceGetMemoryInfo")
    found = probe(fitted, *OLDER, *present)
    assert found == dict.fromkeys(OLDER, "NULL NULL") | dict.fromkeys(present, "there there")


def test_what_a_newer_driver_has_resolves(fitted: Runai) -> None:
    """In the driver's own library, which comes along as a dependency of ours; the stubs answer "not supported"."""
    found = probe(fitted, *(f"+{name}" for name in NEWER))
    assert found == {"cuMemBrandNewAlloc": "there there 801", "nvmlDeviceGetBrandNewMemoryInfo": "there there 3"}
    done = fitted.run("/newer", options=(f"--volume={program('newer')}:/newer:ro",))
    assert done.stdout == "cuMemBrandNewAlloc 801\n"


def test_the_share_holds_on_such_a_driver(fitted: Runai) -> None:
    cudash = (f"--volume={program('cudash')}:/cudash:ro",)
    done = fitted.run("/cudash", "primary", "total", "alloc 2g", "alloc 2g", memory="3g", options=cudash)
    results = [line.partition(" -> ")[2].split()[1] for line in done.stdout.splitlines()]
    assert results == ["CUDA_SUCCESS", "CUDA_SUCCESS", "CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY"]
    assert "3072MiB" in fitted.run("nvidia-smi", memory="3g").stdout


def test_a_copy_differs_in_what_the_driver_lacks_alone(fitted: Runai) -> None:
    for soname, path in copies(fitted).items():
        lacking = {name for name in table(soname) if name in OLDER or name.startswith("cudbg")}
        assert hidden_symbols(NATIVE / soname, path) == lacking
        assert path.stat().st_mode & 0o777 == 0o444


def test_copies_are_made_anew_where_they_are_gone_or_old(fitted: Runai) -> None:
    before = copies(fitted)
    first = before["libcuda.so.1"]
    data, inode = first.read_bytes(), before["libnvidia-ml.so.1"].stat().st_ino
    first.unlink()
    assert "3072MiB" in fitted.run("nvidia-smi").stdout
    assert copies(fitted) == before
    assert first.read_bytes() == data
    assert before["libnvidia-ml.so.1"].stat().st_ino == inode  # what holds the right bytes stays as it is
    first.chmod(0o644)
    first.write_bytes(b"damaged")
    assert "3072MiB" in fitted.run("nvidia-smi").stdout
    assert first.read_bytes() == data


def test_many_containers_at_the_first_start_after_a_boot(fitted: Runai) -> None:
    """Each finds no inventory: one makes it, the others wait for it."""
    shutil.rmtree(fitted.state / "libvgpu")
    (fitted.state / "host.json").unlink()
    with ThreadPoolExecutor(8) as pool:
        shown = [pool.submit(fitted.run, "nvidia-smi", memory="1g") for _ in range(8)]
    assert all("1024MiB" in one.result().stdout for one in shown)


def link(runai: Runai, folder: Path, source: str, *, then: str = "true") -> subprocess.CompletedProcess[str]:
    """Compile SOURCE here and link it in a container, as a just-in-time compiler does there; then run THEN."""
    (folder / "program.c").write_text(source)
    subprocess.run(["/usr/bin/gcc", "-c", folder / "program.c", "-o", folder / "program.o"], check=True)
    script = f"gcc /object/program.o -Wl,--as-needed -lcuda -lnvidia-ml -o /tmp/program && {then}"
    options = (f"--volume={folder}:/object:ro",)
    return runai.run("/bin/sh", "-c", script, image=images.LINKER, options=options, check=False)


def test_a_linker_in_the_container_keeps_us(fitted: Runai, tmp_path: Path) -> None:
    """With --as-needed a linker drops a library in which it finds nothing: Triton then failed at run time."""
    source = "int cuInit(unsigned); int nvmlInit_v2(void); int main(void) { return cuInit(0) + nvmlInit_v2(); }"
    done = link(fitted, tmp_path, source, then="/tmp/program && cat /tmp/program | base64")
    assert done.returncode == 0, done.stderr
    linked = tmp_path / "linked"
    linked.write_bytes(base64.b64decode(done.stdout))
    with linked.open("rb") as file:
        dynamic: Any = ELFFile(file).get_section_by_name(".dynamic")
        needed = [tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
    assert needed == ["libcuda.so.1", "libnvidia-ml.so.1", "libc.so.6"]


def test_a_program_that_needs_what_the_driver_lacks_does_not_link(fitted: Runai, tmp_path: Path) -> None:
    done = link(fitted, tmp_path, "int cuMemAllocAsync(void); int main(void) { return cuMemAllocAsync(); }")
    assert done.returncode != 0
    assert "undefined reference to `cuMemAllocAsync'" in done.stderr


def test_a_weak_reference_to_it_links_and_is_null(fitted: Runai, tmp_path: Path) -> None:
    source = """
        __attribute__((weak)) int cuMemAllocAsync(void);
        int cuInit(unsigned);
        int main(void) { return cuInit(0) || cuMemAllocAsync; }
    """
    done = link(fitted, tmp_path, source, then="/tmp/program")
    assert done.returncode == 0, done.stderr


def test_a_linker_against_the_usual_driver(runai: Runai, tmp_path: Path) -> None:
    images.load(runai.engine, images.LINKER)
    source = "int cuMemAllocAsync(void *, long, void *); int main(void) { return cuMemAllocAsync(0, 0, 0) == 0; }"
    done = link(runai, tmp_path, source, then="/tmp/program")
    assert done.returncode == 0, done.stderr


def test_a_state_directory_without_exec(folder: Path) -> None:
    """Debian and Ubuntu mount /run noexec. What lies there has to be a library in the container all the same."""
    top = folder / "n"
    (top / "s").mkdir(parents=True)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev", "runai-test", top / "s"], check=True)
    try:
        with SimHost(top / "gpu-host") as simhost:
            config = configuration(top, simhost)
            configure(config, top / "config.json", top / "runai-runtime")
            with Engine({"runai": top / "runai-runtime"}) as engine:
                images.load(engine, images.BUSYBOX)
                runai = Runai(engine, simhost, config, top / "runai-runtime")
                assert "3072MiB" in runai.run("nvidia-smi").stdout
    finally:
        subprocess.run(["/bin/umount", top / "s"], check=True)


def test_an_image_with_its_own_newer_libcuda(runai: Runai, fitted: Runai) -> None:
    """cuda-compat: the image's library, which LD_LIBRARY_PATH names, is covered by ours, in front of the host's."""
    compat = f"--volume={fitted.simhost.lib}:/usr/local/cuda/compat:ro"
    programs = [f"--volume={program(name)}:/{name}:ro" for name in ("probe", "cudash")]
    options = (compat, *programs, "--env=LD_LIBRARY_PATH=/usr/local/cuda/compat")
    native = runai.run("/probe", "cuMemBrandNewAlloc", memory=None, options=options)
    assert native.stdout == "cuMemBrandNewAlloc there there\n"
    shared = runai.run("/probe", "cuMemBrandNewAlloc", "cuMemAllocAsync", options=options)
    assert shared.stdout == "cuMemBrandNewAlloc NULL NULL\ncuMemAllocAsync there there\n"
    done = runai.run("/cudash", "primary", "alloc 2g", "alloc 2g", options=options)
    assert [line.split()[-1] for line in done.stdout.splitlines()][2:] == ["CUDA_ERROR_OUT_OF_MEMORY"]
