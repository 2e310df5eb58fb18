"""poststop removes what the hook made, and nothing else."""

from __future__ import annotations

import shutil

import pytest

from tests.unit.hook.container import HOME, Container


def test_poststop_twice(debian: Container) -> None:
    assert debian.create().code == 0
    for _ in range(2):
        done = debian.stage("poststop")
        assert (done.returncode, done.stderr) == (0, "")


def test_poststop_without_a_root(debian: Container) -> None:
    assert debian.create().code == 0
    shutil.rmtree(debian.root)
    assert debian.stage("poststop").returncode == 0
    assert not debian.state.exists()


@pytest.mark.parametrize("gone", ["plan", "made", "limits", "grant.json"])
def test_poststop_after_half_of_it(debian: Container, gone: str) -> None:
    assert debian.create().code == 0
    (debian.state / gone).unlink()
    assert debian.stage("poststop").returncode == 0
    assert not debian.state.exists()


def test_poststop_with_a_damaged_plan(debian: Container) -> None:
    assert debian.create().code == 0
    (debian.state / "plan").write_bytes(b"\0\xff")
    assert debian.stage("poststop").returncode == 0
    assert not debian.state.exists()


def test_poststop_keeps_what_the_container_wrote(debian: Container) -> None:
    assert debian.create().code == 0
    (debian.root / "usr/bin/nvidia-smi").write_bytes(b"theirs")
    (debian.root / "dev/more").write_bytes(b"")
    (debian.root / ".runai/kept").write_bytes(b"")
    assert debian.stage("poststop").returncode == 0
    assert (debian.root / "usr/bin/nvidia-smi").read_bytes() == b"theirs"
    assert (debian.root / "dev/more").exists()
    assert (debian.root / ".runai/kept").exists()
    assert not (debian.root / "dev/nvidia0").exists()


def test_poststop_follows_no_link(debian: Container) -> None:
    """The container may have put links where its mount points were."""
    outside = debian.base / "outside"
    outside.mkdir()
    for name in ("nvidia-smi", "nvidia0", "libcuda.so.1"):
        (outside / name).write_bytes(b"")
    assert debian.create().code == 0
    shutil.rmtree(debian.root / "usr/bin")
    (debian.root / "usr/bin").symlink_to(outside)
    shutil.rmtree(debian.root / "dev")
    (debian.root / "dev").symlink_to(outside)
    (debian.root / HOME[1:] / "libcuda.so.1").unlink()
    (debian.root / HOME[1:] / "libcuda.so.1").symlink_to(outside / "libcuda.so.1")
    assert debian.stage("poststop").returncode == 0
    assert sorted(path.name for path in outside.iterdir()) == ["libcuda.so.1", "nvidia-smi", "nvidia0"]


@pytest.mark.parametrize(
    "line",
    [
        "/../outside/file",
        "/usr/../../outside/file",
        "outside/file",
        "/",
        "",
        "//",
        "/..",
        "/./.",
        "/" + "a" * 5000,
        "/usr/bin/env",
        "/empty/part",
    ],
)
def test_poststop_with_a_damaged_journal(debian: Container, line: str) -> None:
    (debian.base / "outside").mkdir()
    (debian.base / "outside/file").write_bytes(b"")
    (debian.root / "empty").mkdir()
    (debian.root / "empty/part").write_bytes(b"")
    # The last line was cut off while it was written.
    (debian.state / "made").write_text(f"{line}\n/empty/pa")
    assert debian.stage("poststop").returncode == 0
    assert (debian.base / "outside/file").exists()
    assert (debian.root / "usr/bin/env").exists()
    assert (debian.root / "empty/part").exists() == (line != "/empty/part")
    assert debian.root.is_dir()


def test_poststop_leaves_files_of_others(debian: Container) -> None:
    (debian.state / "something").write_text("theirs")
    assert debian.stage("poststop").returncode == 0
    assert [path.name for path in debian.state.iterdir()] == ["something"]
