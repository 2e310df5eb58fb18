"""What createContainer mounts into usual images, with which attributes, and what it leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.unit.hook.container import HOME, OURS, PTX, Container, check_complete, snapshot


def test_plain_image(debian: Container) -> None:
    image = snapshot(debian.root)
    assert debian.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    result = debian.create()
    check_complete(result)
    assert result.tree["/usr/bin/nvidia-smi"] == "smi"
    assert result.tree["/dev/nvidia0"] == "node"
    assert debian.made() == [
        "/.runai",
        *(f"{HOME}/{name}" for name in (*OURS, PTX)),
        "/usr/bin/nvidia-smi",
        "/dev",
        "/dev/nvidia0",
    ]
    assert debian.stage("poststop").returncode == 0
    assert snapshot(debian.root) == image
    assert not debian.state.exists()


def test_the_shipped_program_does_the_same(shipped_hook: Path, tmp_path: Path) -> None:
    container = Container(shipped_hook, tmp_path)
    container.file(f"{HOME}/libc.so.6", b"libc")
    container.file("/usr/local/cuda/compat/libcuda.so.535", b"theirs")
    image = snapshot(container.root)
    assert container.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    result = container.create()
    check_complete(result)
    assert result.tree["/usr/local/cuda/compat/libcuda.so.535"] == "ours cuda"
    assert container.stage("poststop").returncode == 0
    assert snapshot(container.root) == image
    assert not container.state.exists()


def test_mount_attributes(debian: Container) -> None:
    mounts = debian.create().mounts
    assert mounts["/.runai"][0] == "ro,nosuid,nodev,relatime"
    assert mounts["/.runai/limits"][0] == "ro,nosuid,nodev,noexec,relatime"
    assert mounts["/.runai/real/libcuda.so.1"][0] == "ro,nosuid,nodev,relatime"
    assert mounts["/.runai/account/page"][0] == "rw,nosuid,nodev,noexec,relatime"
    assert mounts[f"{HOME}/libcuda.so.1"][0] == "ro,nosuid,nodev,relatime"
    assert mounts["/dev/nvidia0"][0] == "rw,nosuid,noexec,relatime"
    assert mounts["/.runai"][2] == mounts["/.runai/account"][2] == "tmpfs"
    assert {optional for _, optional, _ in mounts.values()} == {"-"}, "a mount of ours must be private"


def test_account_has_room_for_its_page_only(debian: Container) -> None:
    account = debian.root / ".runai/account"
    result = debian.create(
        after=[
            f"stat -c '%s %a' {account}/page",
            f"stat -f -c '%f %d' {account}",
            f"touch {account}/more 2>&1",
            f"rm {account}/page 2>&1",
            f"printf x | dd of={account}/page conv=notrunc && echo written",
            f"head -c 1000000 /dev/zero >> {account}/page && echo grown",
            f"touch {account}/../more 2>&1",
        ]
    )
    assert result.code == 0
    size, mode = result.after[0].split()
    assert mode == "666"
    assert int(size) > 0
    assert result.after[1].split() == ["0", "0"]
    assert "Read-only" in result.after[2]
    assert "Read-only" in result.after[3]
    assert result.after[4:6] == ["written\n", ""]
    assert "Read-only" in result.after[6]


def test_fedora_like_image(empty: Container) -> None:
    empty.file("/usr/lib64/libc.so.6", b"libc")
    empty.link("/lib64", "usr/lib64")
    empty.link("/lib", "usr/lib")
    check_complete(empty.create(), "/usr/lib64")


def test_empty_image(empty: Container) -> None:
    check_complete(empty.create(), "/usr/lib")
    assert empty.made()[:4] == ["/.runai", "/usr", "/usr/lib", "/usr/lib/libcuda.so.1"]
    assert empty.stage("poststop").returncode == 0
    assert list(empty.root.iterdir()) == []


def test_program_of_the_image_stays(debian: Container) -> None:
    debian.file("/usr/bin/nvidia-smi", b"theirs")
    assert debian.create().tree["/usr/bin/nvidia-smi"] == "theirs"


def test_left_over_mount_points_are_used(debian: Container) -> None:
    """An image made by docker commit has them, and so has a container that was killed."""
    for path in (f"{HOME}/libcuda.so.1", "/usr/bin/nvidia-smi", "/dev/nvidia0"):
        debian.file(path, b"")
    (debian.root / ".runai/real").mkdir(parents=True)
    result = debian.create()
    check_complete(result)
    assert result.tree["/usr/bin/nvidia-smi"] == "smi"
    assert debian.made() == [f"{HOME}/libnvidia-ml.so.1", f"{HOME}/{PTX}"]
    assert debian.stage("poststop").returncode == 0
    assert (debian.root / "usr/bin/nvidia-smi").exists()


def test_second_start_without_a_poststop_between(debian: Container) -> None:
    check_complete(debian.create())
    (debian.state / "made").unlink()
    check_complete(debian.create())
    assert debian.made() == []


def test_twice_in_one_namespace(debian: Container) -> None:
    check_complete(debian.create(times=2))
