"""Volumes and roots: read-only, shared with the host, or changed while the hook works."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.hook.container import HOME, OURS, PTX, Container, check_complete, check_refused, snapshot


def bind(source: Path, target: Path, options: str = "") -> list[str]:
    commands = [f"mount --bind {source} {target}"]
    if options:
        commands.append(
            f"mount -o remount,bind,{options} {target}" if options == "ro" else f"mount --make-{options} {target}"
        )
    return commands


@pytest.fixture
def volume(debian: Container) -> Path:
    """A volume with a C library of its own, for the library folder."""
    folder = debian.base / "volume"
    folder.mkdir()
    (folder / "libc.so.6").write_bytes(b"libc")
    return folder


def test_volume_on_the_library_folder(debian: Container, volume: Path) -> None:
    """Nothing is made in a volume: it would stay in the host's folder."""
    before = snapshot(volume)
    check_refused(debian.create(before=bind(volume, debian.root / HOME[1:])), f"the volume on {HOME} has no file")
    assert snapshot(volume) == before


def test_tmpfs_on_the_library_folder(debian: Container) -> None:
    """A tmpfs of the container's own goes with it: there is no host to leave anything on."""
    result = debian.create(before=[f"mount -t tmpfs tmpfs {debian.root}{HOME}"])
    assert result.code == 0, result.stderr


def test_read_only_volume_without_the_driver(debian: Container, volume: Path) -> None:
    result = debian.create(before=bind(volume, debian.root / HOME[1:], "ro"))
    check_refused(result, "libcuda.so.1", f"the volume on {HOME} has no file")


def test_read_only_volume_with_the_driver(debian: Container, volume: Path) -> None:
    for name in (*OURS, PTX):
        (volume / name).write_bytes(b"theirs")
    check_complete(debian.create(before=bind(volume, debian.root / HOME[1:], "ro")))


def test_read_only_volume_with_the_driver_elsewhere(debian: Container, volume: Path) -> None:
    for name in (*OURS, PTX):
        debian.file(f"/usr/local/nvidia/lib64/{name}", b"theirs")
    result = debian.create(before=bind(volume, debian.root / HOME[1:], "ro"))
    assert result.code == 0, result.stderr
    assert result.tree["/usr/local/nvidia/lib64/libcuda.so.1"] == "ours cuda"
    assert result.tree[f"/usr/local/nvidia/lib64/{PTX}"] == "theirs"


def test_read_only_volume_under_a_program(debian: Container, volume: Path) -> None:
    """The volume decides what is there: no limit hangs on a program."""
    result = debian.create(before=bind(volume, debian.root / "usr/bin", "ro"))
    assert result.code == 0, result.stderr
    assert "/usr/bin/nvidia-smi" not in result.tree


@pytest.mark.parametrize("point", [HOME, "/usr", "/usr/bin"])
def test_shared_volume(debian: Container, point: str) -> None:
    """What is mounted below a volume with shared propagation appears on the host and stays there."""
    copy = debian.base / "copy"
    shutil.copytree(debian.root / point[1:], copy, symlinks=True)
    before = snapshot(copy)
    result = debian.create(before=bind(copy, debian.root / point[1:], "shared"))
    check_refused(result, f"the volume on {point} is shared", "rslave or rprivate")
    assert snapshot(copy) == before


def test_shared_volume_with_the_driver(debian: Container, volume: Path) -> None:
    (volume / "libcuda.so.1").write_bytes(b"theirs")
    (debian.root / "opt/vol ume").mkdir(parents=True)
    debian.write_plan(["search", "/opt/vol ume"])
    result = debian.create(
        before=[
            f"mount --bind {volume} '{debian.root}/opt/vol ume'",
            f"mount --make-shared '{debian.root}/opt/vol ume'",
        ]
    )
    check_refused(result, "/opt/vol ume/libcuda.so.1", "the volume on /opt/vol ume is shared")


def test_slave_volume(debian: Container, volume: Path) -> None:
    for name in (*OURS, PTX):
        (volume / name).write_bytes(b"theirs")
    target = debian.root / HOME[1:]
    check_complete(debian.create(before=[*bind(volume, target, "shared"), f"mount --make-slave {target}"]))


def test_shared_root(debian: Container) -> None:
    result = debian.create(before=bind(debian.root, debian.root, "shared"))
    check_refused(result, "shared propagation", "rootfsPropagation")


def test_root_that_is_read_only_already(debian: Container) -> None:
    """As crun's is when the hook runs. What is made there goes through a mount that nobody sees, and is taken away."""
    image = snapshot(debian.root)
    root = debian.root
    read_only = [f"mount --bind {root} {root}", f"mount -o remount,bind,ro {root}"]
    result = debian.create(before=read_only, after=[f"touch {root}/usr/x 2>&1"])
    check_complete(result)
    assert result.mounts[""][0].startswith("ro")
    assert "Read-only" in result.after[0]
    assert debian.made()[0] == "/.runai"
    assert debian.stage("poststop").returncode == 0
    assert snapshot(debian.root) == image


def test_root_on_a_read_only_file_system(debian: Container) -> None:
    root = debian.root
    read_only = [f"mount -t tmpfs none {root}", f"mkdir -p {root}{HOME}", f"mount -o remount,ro {root}"]
    check_refused(debian.create(before=read_only), ".runai", "its file system is read-only")


def test_volume_on_our_folder(debian: Container, volume: Path) -> None:
    (debian.root / ".runai").mkdir()
    check_complete(debian.create(before=bind(volume, debian.root / ".runai")))
    assert [path.name for path in volume.iterdir()] == ["libc.so.6"]


# Points a link back and forth, until it is killed.
FLIP = r"""
import os, sys
link, targets = sys.argv[1], sys.argv[2:]
while True:
    for target in targets:
        os.symlink(target, link + ".new")
        os.rename(link + ".new", link)
"""


def test_volume_changes_meanwhile(debian: Container, count: Callable[[int], int]) -> None:
    """Its links point into the container now and out of it then; no mount ever lands outside of the root."""
    outside = debian.on_host("libcuda.so.1", b"outside").parent
    debian.file("/opt/real/libcuda.so.1", b"theirs")
    link = debian.root / "usr/local/cuda/compat"
    link.parent.mkdir(parents=True)
    up = "../" * len(link.parents)
    (debian.base / "flip").write_text(FLIP)
    flip = [sys.executable, str(debian.base / "flip"), str(link), "/opt/real", str(outside), f"{up}{str(outside)[1:]}"]
    flipper = subprocess.Popen(flip)
    try:
        result = debian.create(after=[f"cat {outside}/libcuda.so.1"], times=count(300), walk=False)
    finally:
        flipper.kill()
        flipper.wait()
    assert result.after == ["outside"]
