"""The driver's libraries that an image brings along are covered with ours, wherever a loader would find them."""

from __future__ import annotations

import os

import pytest

from tests.unit.hook.container import HOME, Container, check_complete, check_refused


@pytest.mark.parametrize(
    "folder",
    [
        "/usr/local/cuda/compat",
        "/usr/local/nvidia/lib64",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
        f"{HOME}/glibc-hwcaps/x86-64-v3",
        "/usr/lib/tls/x86_64",
        "/usr/local/lib/haswell/avx512_1/x86_64/tls",
    ],
)
def test_library_of_the_image_is_covered(debian: Container, folder: str) -> None:
    debian.file(f"{folder}/libcuda.so.535.1", b"theirs")
    debian.file(f"{folder}/libnvidia-ml.so.535.1", b"theirs")
    debian.file(f"{folder}/libcudart.so.13", b"cudart")
    debian.link(f"{folder}/libcuda.so", "libcuda.so.535.1")
    result = debian.create()
    check_complete(result)
    assert result.tree[f"{folder}/libcuda.so.535.1"] == "ours cuda"
    assert result.tree[f"{folder}/libnvidia-ml.so.535.1"] == "ours nvml"
    assert result.tree[f"{folder}/libcudart.so.13"] == "cudart"


def test_too_many_libraries(debian: Container) -> None:
    for number in range(300):
        debian.file(f"/usr/local/cuda/compat/libcuda.so.{number}", b"theirs")
    check_refused(debian.create(), "256 files")


def test_empty_library_elsewhere_is_covered(debian: Container) -> None:
    """A loader that meets an empty libcuda.so.1 gives up with "file too short" and looks no further."""
    debian.file("/usr/local/nvidia/lib64/libcuda.so.1", b"")
    assert debian.create().tree["/usr/local/nvidia/lib64/libcuda.so.1"] == "ours cuda"


def test_library_of_our_name_that_is_a_folder_or_dangles(debian: Container) -> None:
    (debian.root / "usr/local/cuda/compat/libcuda.so.1").mkdir(parents=True)
    debian.link("/usr/local/cuda/compat/libcuda.so", "nowhere")
    debian.link("/usr/local/cuda/compat/libcuda.so.3", "/usr/bin/env/deeper")
    check_complete(debian.create())


def test_library_of_our_name_is_a_link_in_a_circle(debian: Container) -> None:
    debian.link("/usr/local/cuda/compat/libcuda.so.1", "libcuda.so")
    debian.link("/usr/local/cuda/compat/libcuda.so", "libcuda.so.1")
    check_refused(debian.create(), "/usr/local/cuda/compat/libcuda.so", "circle")


@pytest.mark.parametrize("link", ["/usr/local/cuda/compat", "/usr/local/cuda/compat/libcuda.so.1", "/etc/ld.so.cache"])
def test_link_of_proc_leads_somewhere_only_later(debian: Container, link: str) -> None:
    """The links in /proc/self lead out of the container while the hook looks at them, and into it once it runs."""
    debian.link(link, "/proc/self/root/opt/hidden")
    (debian.root / "proc").mkdir()
    check_refused(debian.create(before=[f"mount --bind /proc {debian.root}/proc"]), link)


def test_library_of_our_name_that_is_a_fifo(debian: Container) -> None:
    (debian.root / "usr/local/cuda/compat").mkdir(parents=True)
    os.mkfifo(debian.root / "usr/local/cuda/compat/libcuda.so.1")
    check_refused(debian.create(), "/usr/local/cuda/compat/libcuda.so.1")


def test_driver_mounted_by_someone_else_is_covered(debian: Container) -> None:
    """As a CDI hook does it: the host's real library, bind-mounted under its full name."""
    target = debian.file(f"{HOME}/libcuda.so.580.1", b"")
    debian.link(f"{HOME}/libcuda.so.1", "libcuda.so.580.1")
    result = debian.create(before=[f"mount --bind {debian.real['libcuda.so.1']} {target}"])
    assert result.code == 0
    assert result.tree[f"{HOME}/libcuda.so.580.1"] == "ours cuda"
    assert result.tree["/.runai/real/libcuda.so.1"] == "real cuda"


def test_same_folder_under_two_mounts(debian: Container) -> None:
    """A file covered under one of them is not covered under the other."""
    debian.file("/usr/local/nvidia/lib/libcuda.so.1", b"theirs")
    (debian.root / "usr/local/nvidia/lib64").mkdir()
    nvidia = debian.root / "usr/local/nvidia"
    result = debian.create(before=[f"mount --bind {nvidia}/lib {nvidia}/lib64"])
    assert result.tree["/usr/local/nvidia/lib/libcuda.so.1"] == "ours cuda"
    assert result.tree["/usr/local/nvidia/lib64/libcuda.so.1"] == "ours cuda"
