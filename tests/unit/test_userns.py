"""Who a container's root is on the host, by its specification, and what that user gets at."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.errors import RefusalError
from runai_runtime.userns import owner_of_root, refuse_not_runnable, refuse_out_of_reach

MAPPED = [{"containerID": 1, "hostID": 5, "size": 9}, {"containerID": 0, "hostID": 1000, "size": 1}]
OWN = [{"type": "mount"}, {"type": "user"}]


def linux(namespaces: Any, uid: Any = MAPPED, gid: Any = MAPPED) -> dict[str, Any]:
    return {"linux": {"namespaces": namespaces, "uidMappings": uid, "gidMappings": gid}}


@pytest.mark.parametrize(
    ("spec", "owner"),
    [
        ({}, None),
        ({"linux": None}, None),
        (linux([{"type": "mount"}], None, None), None),
        (linux([{"type": "mount", "path": "/x"}], [], []), None),
        (linux(OWN), (1000, 1000)),
        (linux([]), (1000, 1000)),
        (linux(OWN, [{"hostID": 7, "size": 1}], [{"containerID": 0, "hostID": 0, "size": 4294967295}]), (7, 0)),
    ],
)
def test_owner(spec: dict[str, Any], owner: tuple[int, int] | None) -> None:
    assert owner_of_root(spec) == owner


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (linux([{"type": "user", "path": "/proc/1/ns/user"}]), "joins"),
        (linux([{"type": "user", "path": "/proc/1/ns/user"}], None, None), "joins"),
        (linux(OWN, []), "uidMappings"),
        (linux(OWN, MAPPED, None), "gidMappings"),
        (linux(OWN, MAPPED[:1]), "nobody is root"),
        (linux(OWN, [{"containerID": 0, "hostID": "1", "size": 1}]), "nobody is root"),
        (linux(OWN, [{"containerID": 0, "hostID": 1, "size": 0}]), "nobody is root"),
        (linux(OWN, [{"containerID": 0, "hostID": -1, "size": 1}]), "nobody is root"),
        (linux(OWN, [{"containerID": 0, "hostID": 1 << 40, "size": 1}]), "nobody is root"),
    ],
)
def test_owner_that_can_not_be_told(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(RefusalError, match=why):
        owner_of_root(spec)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents):
        if folder != folder.parent and folder.stat().st_mode & 1 == 0:
            folder.chmod(folder.stat().st_mode | 1)
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "folder/file").touch(0o644)
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "file", "owner", "group", "reached"),
    [
        (0o711, 0o755, 0, 0, True),
        (0o711, 0o744, 0, 0, False),
        (0o710, 0o755, 0, 0, False),
        (0o710, 0o750, 0, 1000, True),
        (0o701, 0o755, 0, 1000, False),
        (0o100, 0o500, 1000, 0, True),
        (0o077, 0o755, 1000, 0, False),
    ],
)
def test_reach(place: Path, folder: int, file: int, owner: int, group: int, reached: bool) -> None:
    for path, mode in ((place / "folder", folder), (place / "folder/file", file)):
        os.chown(path, owner, group)
        path.chmod(mode)
    (place / "link").symlink_to("folder/file")
    allowed = contextlib.nullcontext() if reached else pytest.raises(RefusalError, match=str(place / "folder"))
    with allowed:
        refuse_out_of_reach((1000, 1000), [str(place / "link")], [str(place / "link"), str(place / "not/there")])


def test_not_runnable(place: Path) -> None:
    folder = place / "folder"
    refuse_not_runnable([str(folder / "file"), "/not/there/x"])
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "noexec", "none", folder], check=True)
    try:
        with pytest.raises(RefusalError, match="noexec"):
            refuse_not_runnable([str(folder / "file")])
    finally:
        subprocess.run(["/bin/umount", folder], check=True)
