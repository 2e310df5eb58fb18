"""Images whose files and links are there to lead a mount astray."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from tests.unit.hook.container import HOME, PTX, TRIPLET, Container, check_refused


def test_library_folder_is_a_link_to_the_hosts_etc(empty: Container) -> None:
    empty.link("/usr/lib", "/etc")
    etc = sorted(os.listdir("/etc"))
    check_refused(empty.create(), "/usr/lib", "link to nowhere")
    (empty.root / "etc").mkdir()
    result = empty.create()
    assert result.code == 0
    assert result.tree["/etc/libcuda.so.1"] == "ours cuda"
    assert "/etc/libcuda.so.1" in empty.made()
    assert sorted(os.listdir("/etc")) == etc


@pytest.mark.parametrize("to", ["/tmp", "../../../../../tmp", "usr", ".runai"])
def test_own_folder_is_a_link(debian: Container, to: str) -> None:
    debian.link("/.runai", to)
    (debian.root / "tmp").mkdir()
    check_refused(debian.create(), "/.runai", "remove it from the image")
    assert list((debian.root / "tmp").iterdir()) == []


def test_own_folder_is_a_file(debian: Container) -> None:
    debian.file("/.runai")
    check_refused(debian.create(), "/.runai")


def test_library_is_a_link_out_of_the_root(debian: Container) -> None:
    debian.link(f"{HOME}/libcuda.so.1", "../../../../../../../../../etc/passwd")
    passwd = Path("/etc/passwd").read_bytes()
    result = debian.create()
    assert result.code == 0
    assert result.tree["/etc/passwd"] == "ours cuda", "the link ends at the container's own file"
    assert Path("/etc/passwd").read_bytes() == passwd


@pytest.mark.parametrize("to", ["/.runai/real/libcuda.so.1", "../../../.runai/limits", "/.runai/account/page"])
def test_library_is_a_link_into_our_folder(debian: Container, to: str) -> None:
    debian.link("/usr/local/cuda/compat/libcuda.so.1", to if to[0] == "/" else f"../{to}")
    check_refused(debian.create(), "/usr/local/cuda/compat/libcuda.so.1", "/.runai")


def test_library_is_a_link_to_the_other_library(debian: Container) -> None:
    debian.link(f"{HOME}/libnvidia-ml.so.1", "libcuda.so.1")
    check_refused(debian.create(), "is not the library that keeps the share")


def test_other_library_is_a_link_to_ours(debian: Container) -> None:
    """What it covers is covered again."""
    debian.link(f"{HOME}/{PTX}", "libcuda.so.1")
    result = debian.create()
    assert result.code == 0
    assert result.tree[f"{HOME}/libcuda.so.1"] == "ours cuda"


def test_dangling_links(debian: Container) -> None:
    debian.link(f"{HOME}/libcuda.so.1", "libcuda.so.580.1")
    debian.link(f"{HOME}/libcuda.so.580.1", f"../{TRIPLET}/libcuda.so.580.2")
    debian.link(f"{HOME}/libnvidia-ml.so.1", "/opt/nvml")
    (debian.root / "opt").mkdir()
    result = debian.create()
    assert result.code == 0, result.stderr
    assert result.tree[f"{HOME}/libcuda.so.580.2"] == "ours cuda"
    assert result.tree["/opt/nvml"] == "ours nvml"
    assert f"{HOME}/libcuda.so.580.2" in debian.made()
    assert "/opt/nvml" in debian.made()
    assert debian.stage("poststop").returncode == 0
    assert not (debian.root / "opt/nvml").exists()


@pytest.mark.parametrize("to", ["/not/there/libcuda.so", "libcuda.so.1", "nowhere/", "/", "..", "nowhere/.."])
def test_links_that_lead_nowhere(debian: Container, to: str) -> None:
    debian.link(f"{HOME}/libcuda.so.1", to)
    check_refused(debian.create(), f"{HOME}/libcuda.so.1")
    assert not (debian.root / "not").exists()


@pytest.mark.parametrize("path", [f"{HOME}/libcuda.so.1", f"{HOME}/{PTX}", "/usr/bin/nvidia-smi", "/dev/nvidia0"])
@pytest.mark.parametrize("kind", ["FIFO", "folder", "socket", "device"])
def test_target_of_another_type(debian: Container, path: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = debian.root / path.lstrip("/")
    target.parent.mkdir(exist_ok=True)
    if kind == "FIFO":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    elif kind == "socket":
        monkeypatch.chdir(target.parent)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(target.name)
    else:
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    check_refused(debian.create(), path, f"it is a {kind}")


def test_folder_on_the_way_is_a_file(debian: Container) -> None:
    debian.file("/dev", b"")
    check_refused(debian.create(), "/dev")


def test_path_in_the_image_with_control_characters(debian: Container) -> None:
    (debian.root / "opt/a\x1b[2J\nb").mkdir(parents=True)
    debian.link("/usr/bin/nvidia-smi", "/opt/a\x1b[2J\nb/smi")
    check_refused(debian.create(), "newline", "a?[2J?b")
