"""Images that bring along a newer libcuda of their own, as NVIDIA's cuda-compat packages do."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runai_runtime.elf import read_library
from tests.docker import images
from tests.docker.host import Runai
from tests.docker.test_fitted import NEWER, OLDER
from tests.programs.build import program
from tests.simgpu.build import Release, build, source_hash
from tests.simgpu.config import DRIVER_VERSION
from tests.simgpu.host import CACHE

CUDA = "libcuda.so.1"
PTX = "libnvidia-ptxjitcompiler.so.1"
TOP = "usr/local/cuda-13.2"
COMPAT = f"{TOP}/compat"
LINK = "/usr/local/cuda/compat"  # by way of /etc/alternatives, as NVIDIA's packages have it
NEWER_VERSION = "590.44.01"

ALLOCATIONS = ("primary", "total", "alloc 2g", "alloc 2g")
OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"

Make = Callable[..., str]


@pytest.fixture(scope="module")
def newer() -> Path:
    """The libraries of a newer driver, which lacks some functions of our table and has one beyond it."""
    release = Release(without=OLDER, extra=NEWER)
    return build(CACHE / source_hash(release)[:16], release) / "lib"


def real(folder: Path) -> bytes:
    return (folder / CUDA).read_bytes()


def compat_tree(libcuda: bytes, ptx: bytes, version: str = NEWER_VERSION) -> images.Tree:
    tree = images.busybox_tree()
    tree.link("usr/local/cuda", "/etc/alternatives/cuda")
    tree.link("etc/alternatives/cuda", f"/{TOP}")
    tree.folder(COMPAT)
    tree.link(f"{COMPAT}/libcuda.so", CUDA)
    tree.link(f"{COMPAT}/{CUDA}", f"libcuda.so.{version}")
    tree.file(f"{COMPAT}/libcuda.so.{version}", libcuda)
    tree.link(f"{COMPAT}/{PTX}", f"libnvidia-ptxjitcompiler.so.{version}")
    tree.file(f"{COMPAT}/libnvidia-ptxjitcompiler.so.{version}", ptx)
    return tree


def add_cache(tree: images.Tree, folder: Path, *folders: str) -> None:
    """What ldconfig makes of the tree and of FOLDERS in ld.so.conf.d."""
    tree.file("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
    tree.file("etc/ld.so.conf.d/00-compat.conf", "".join(f"{name}\n" for name in folders))
    (folder / "tree.tar").write_bytes(tree.tar())
    with tarfile.open(folder / "tree.tar") as tar:
        tar.extractall(folder / "tree")
    subprocess.run(["/sbin/ldconfig", "-r", folder / "tree", "-X"], check=True)
    tree.file("etc/ld.so.cache", (folder / "tree/etc/ld.so.cache").read_bytes())


@pytest.fixture(scope="module")
def make(runai: Runai, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Import a tree as an image; by default with the folder of the compat libraries in its LD_LIBRARY_PATH."""
    made: list[str] = []

    def make(tree: images.Tree, *changes: str) -> str:
        name = f"compat:{len(made)}"
        tar = tmp_path_factory.mktemp("image") / "image.tar"
        tar.write_bytes(tree.tar())
        lines = changes or (f"ENV LD_LIBRARY_PATH={LINK}:/usr/local/nvidia/lib64",)
        runai.engine.docker("import", *(f"--change={line}" for line in lines), tar, name)
        tar.unlink()
        made.append(name)
        return name

    yield make
    runai.engine.remove_containers()
    for name in made:
        runai.engine.docker("rmi", name)


@pytest.fixture(scope="module")
def image(make: Make, newer: Path) -> str:
    return make(compat_tree(real(newer), (newer / PTX).read_bytes()))


def programs(*names: str) -> tuple[str, ...]:
    return tuple(f"--volume={program(name)}:/{name}:ro" for name in names)


def where(runai: Runai, image: str, *names: str) -> dict[str, str]:
    """What the loader finds in a container with a share, libcuda.so.1 and libnvidia-ml.so.1 first."""
    first = (CUDA, "libnvidia-ml.so.1")
    done = runai.run("/where", *first, *names, memory="1g", image=image, options=programs("where"))
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in done.stdout.splitlines()}


def results(runai: Runai, image: str, *commands: str) -> list[str]:
    done = runai.run("/cudash", *commands, image=image, options=programs("cudash"))
    return codes(done.stdout.splitlines())


def codes(lines: list[str]) -> list[str]:
    return [line.partition(" -> ")[2].split()[1] for line in lines]


def behind(runai: Runai, image: str, options: tuple[str, ...] = ()) -> str:
    """Whose libcuda is behind ours, "host" or "image", by the functions that each alone has. The share holds."""
    allocations = " ".join(f"'{command}'" for command in ALLOCATIONS)
    script = f"/where {CUDA} cuMemBrandNewAlloc cuMemAllocAsync; /cudash {allocations}"
    done = runai.run("sh", "-c", script, image=image, options=(*programs("where", "cudash"), *options))
    lines = done.stdout.splitlines()
    assert codes(lines[3:]) == [*["CUDA_SUCCESS"] * 3, OUT_OF_MEMORY]
    ours, brand_new, async_alloc = (line.partition(" ")[2] for line in lines[:3])
    answers = {("NULL", ours): "host", (f"/.runai/real/{CUDA}", "NULL"): "image"}
    return answers[brand_new, async_alloc]


def host_is_behind(runai: Runai, image: str, options: tuple[str, ...] = ()) -> bool:
    return behind(runai, image, options) == "host"


def image_is_behind(runai: Runai, image: str) -> bool:
    return behind(runai, image) == "image"


def test_the_images_library_is_behind_ours(runai: Runai, image: str) -> None:
    found = where(runai, image, "cuMemAlloc_v2", "cuLaunchKernel", "cuMemBrandNewAlloc", *OLDER, PTX)
    ours = f"{LINK}/{CUDA}"
    assert found[CUDA] == found["cuMemAlloc_v2"] == found["cuLaunchKernel"] == ours
    assert found["cuMemBrandNewAlloc"] == f"/.runai/real/{CUDA}"
    of_cuda = {name for name in OLDER if name.startswith("cu")}
    assert {found[name] for name in of_cuda} == {"NULL"}
    assert found[PTX] == f"{LINK}/{PTX}"
    # NVML is the host's, which has what that newer release lacks.
    assert found["nvmlDeviceGetGpuFabricInfoV"].endswith("/libnvidia-ml.so.1")


def test_the_share_holds(runai: Runai, image: str) -> None:
    assert results(runai, image, *ALLOCATIONS) == [*["CUDA_SUCCESS"] * 3, OUT_OF_MEMORY]
    assert results(runai, image, "procaddr cuMemAlloc 3020", "primary", "create 4g") == [
        *["CUDA_SUCCESS"] * 2,
        OUT_OF_MEMORY,
    ]
    assert "3072MiB" in runai.run("nvidia-smi", image=image).stdout


def test_without_a_share_it_is_as_it_was(runai: Runai, image: str, newer: Path) -> None:
    """Nothing of what containers with a share did stays in the image."""
    command = f"cd {LINK} && ls && cmp {CUDA} /real && ls -A / | grep -c runai"
    options = (f"--volume={newer / CUDA}:/real:ro",)
    done = runai.run("sh", "-c", command, memory=None, image=image, options=options, check=False)
    names = (CUDA, f"libcuda.so.{NEWER_VERSION}", PTX, f"libnvidia-ptxjitcompiler.so.{NEWER_VERSION}", "libcuda.so")
    assert done.stdout.split() == [*sorted(names), "0"]


def test_what_is_written_down(runai: Runai, image: str) -> None:
    for name, libcuda in (
        (images.BUSYBOX, {"from": "host", "version": DRIVER_VERSION}),
        (image, {"from": "image", "version": NEWER_VERSION, "path": f"/{COMPAT}/libcuda.so.{NEWER_VERSION}"}),
    ):
        arguments = runai.arguments(memory="3g")
        container = runai.engine.docker("run", "-d", *arguments, name, "sleep", "60").stdout.strip()
        grant = json.loads((runai.state / container / "grant.json").read_text())
        runai.engine.remove_containers()
        assert grant["libcuda"] == libcuda


def test_by_the_loaders_cache(runai: Runai, make: Make, newer: Path, tmp_path: Path) -> None:
    tree = compat_tree(real(newer), (newer / PTX).read_bytes())
    add_cache(tree, tmp_path, f"/{COMPAT}")
    image = make(tree, "ENV NOTHING=1")
    assert image_is_behind(runai, image)
    # The host's compiler for PTX lies in the default folder, which the loader looks into last.
    assert where(runai, image, PTX)[PTX] == f"/{COMPAT}/{PTX}"


def test_a_folder_that_the_loader_is_not_told_of(runai: Runai, make: Make, newer: Path) -> None:
    tree = compat_tree(real(newer), b"")
    assert host_is_behind(runai, make(tree, "ENV NOTHING=1"))
    # Behind the default folder, in which the host's libraries are.
    folders = f"/usr/lib/{images.MULTIARCH}:{LINK}"
    assert host_is_behind(runai, make(tree, f"ENV LD_LIBRARY_PATH={folders}"))


@pytest.mark.parametrize("version", ["570.211.01", DRIVER_VERSION, "580.200.01", "1.1", "new"])
def test_a_library_that_is_not_newer(runai: Runai, make: Make, newer: Path, version: str) -> None:
    assert host_is_behind(runai, make(compat_tree(real(newer), b"", version)))


def test_a_volume_over_it(runai: Runai, image: str, newer: Path) -> None:
    for target in (f"/{COMPAT}", "/usr/local/cuda", f"{LINK}/libcuda.so.{NEWER_VERSION}"):
        source = newer if target != f"{LINK}/libcuda.so.{NEWER_VERSION}" else newer / CUDA
        option = f"--volume={source}:{target}:ro"
        assert host_is_behind(runai, image, (option, f"--env=LD_LIBRARY_PATH={LINK}:/usr/local/cuda"))


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "a text": lambda data: b"#!/bin/sh\n" * 100,
    "only a header": lambda data: data[:64],
    "no sections": lambda data: data[:60] + b"\0\0\0\0" + data[64:],
    "sections behind the end": lambda data: data[:40] + b"\xff" * 8 + data[48:],
    "for another processor": lambda data: data[:18] + b"\xb7\0" + data[20:],
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_damaged_library(runai: Runai, make: Make, newer: Path, how: str) -> None:
    assert host_is_behind(runai, make(compat_tree(HOSTILE[how](real(newer)), b"")))


def test_a_huge_library(runai: Runai, image: str, newer: Path) -> None:
    """A hole of 1 TiB behind the library: nothing of it is read."""
    arguments = runai.arguments(*programs("where"), memory="1g")
    container = runai.engine.docker("create", *arguments, image, "/where", CUDA, "cuMemBrandNewAlloc").stdout.strip()
    upper = runai.engine.docker("inspect", "--format={{.GraphDriver.Data.UpperDir}}", container).stdout.strip()
    library = Path(upper, COMPAT, f"libcuda.so.{NEWER_VERSION}")
    library.parent.mkdir(parents=True)
    library.write_bytes(real(newer))
    os.truncate(library, 1 << 40)
    started = runai.engine.docker("start", "--attach", container)
    assert started.stdout.splitlines()[-1] == f"cuMemBrandNewAlloc /.runai/real/{CUDA}"


@pytest.mark.parametrize(
    "target",
    [
        *(CUDA, f"libcuda.so.{NEWER_VERSION}", "nowhere", "/proc/self/exe", "/dev/zero", "/"),
        *("../../../../../../../../../../.." + "/etc/passwd", f"/{COMPAT}/../compat/{CUDA}", "x" * 4000, "/\\x"),
    ],
)
def test_a_link_to_something_else(runai: Runai, make: Make, target: str) -> None:
    """Refused in a sentence, or nothing to load there."""
    tree = images.busybox_tree()
    tree.link("usr/local/cuda", f"/{TOP}")
    tree.link(f"{COMPAT}/{CUDA}", target)
    done = runai.run("/cudash", *ALLOCATIONS, image=make(tree), options=programs("cudash"), check=False)
    if done.returncode == 125:
        assert "runai: " in done.stderr and "nobody expected" not in done.stderr
    else:
        assert done.stdout == "" or done.stdout.splitlines()[-1].endswith(OUT_OF_MEMORY)


def test_a_link_out_of_the_image(runai: Runai, make: Make, newer: Path, tmp_path: Path) -> None:
    """The host has a newer library where the image's link leads to: what counts is the image's own."""
    outside = tmp_path / f"libcuda.so.{NEWER_VERSION}"
    outside.write_bytes(real(newer))
    for target in (str(outside), f"../../../../../../../../../../../../../..{outside}"):
        tree = images.busybox_tree()
        tree.link("usr/local/cuda", f"/{TOP}")
        tree.link(f"{COMPAT}/{CUDA}", target)
        assert host_is_behind(runai, make(tree))
        tree.file(str(outside).lstrip("/"), real(newer))
        assert image_is_behind(runai, make(tree))


def test_a_fifo(runai: Runai, make: Make) -> None:
    tree = images.busybox_tree()
    tree.link("usr/local/cuda", f"/{TOP}")
    tree._add(f"{COMPAT}/libcuda.so.{NEWER_VERSION}", tarfile.FIFOTYPE, 0o644)
    tree.link(f"{COMPAT}/{CUDA}", f"libcuda.so.{NEWER_VERSION}")
    done = runai.run("true", image=make(tree), check=False)
    assert done.returncode == 125
    assert "it is no regular file" in done.stderr


def test_a_library_that_claims_to_be_the_hosts(runai: Runai, make: Make, newer: Path) -> None:
    """It has the build id of the host's and fewer functions: what it is given must not be what others get."""
    theirs = bytes.fromhex(read_library(str(newer / CUDA)).build_id)
    hosts = bytes.fromhex(read_library(str(runai.simhost.lib / CUDA)).build_id)
    assert real(newer).count(theirs) == 1
    image = make(compat_tree(real(newer).replace(theirs, hosts), b""))
    assert image_is_behind(runai, image)
    plain = where(runai, images.BUSYBOX, "cuMemAllocAsync")
    assert plain["cuMemAllocAsync"] == plain[CUDA] != "NULL"


def test_several_at_once(runai: Runai, make: Make, image: str, newer: Path) -> None:
    more = make(compat_tree(real(runai.simhost.lib), b"", "610.1"))
    names = ("cuMemBrandNewAlloc", "cuMemAllocAsync")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda one: where(runai, one, *names), [image, more, images.BUSYBOX] * 3))
    seen = [[answer[name] != "NULL" for name in names] for answer in found]
    assert seen == [[True, False], [False, True], [False, True]] * 3


def test_a_second_start(runai: Runai, image: str) -> None:
    """Its copy is there already, and stays the file that it is."""
    copies = {path: path.stat().st_ino for path in (runai.state / "libvgpu").rglob("lib*")}
    container = runai.engine.docker(
        "create", *runai.arguments(*programs("where"), memory="3g"), image, "/where", CUDA, "cuMemBrandNewAlloc"
    ).stdout.strip()
    for _ in range(2):
        started = runai.engine.docker("start", "--attach", container)
        assert started.stdout.splitlines()[-1] == f"cuMemBrandNewAlloc /.runai/real/{CUDA}"
    assert {path: path.stat().st_ino for path in (runai.state / "libvgpu").rglob("lib*")} == copies
