"""Which grants count as those of living containers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from runai_runtime import ended
from runai_runtime import grant as grants
from runai_runtime.errors import RefusalError
from runai_runtime.host import Host
from runai_runtime.ledger import read_ledger
from runai_runtime.live import read_grant


@pytest.fixture
def host(tmp_path: Path) -> Host:
    paths = {"runtime": "/usr/sbin/runc", "hook": "/usr/bin/true", "libvgpu": "/", "state": str(tmp_path / "s")}
    return Host("config.json", paths)


def made(host: Host, root: Path) -> Path:
    return Path(grants.write_grant(host, "x", str(root), [], "", {}))


def known_to_runc(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "state.json").touch()


def test_a_runtime_that_died_in_the_middle(host: Host, tmp_path: Path) -> None:
    """Its folder alone is no container."""
    path = made(host, tmp_path / "root") / "grant.json"
    grant = json.loads(path.read_text())
    grant["creator"]["start"] -= 1
    path.chmod(0o644)
    path.write_text(json.dumps(grant))
    (tmp_path / "root/x").mkdir(parents=True)
    assert not grants.is_alive(str(path.parent))
    for name in ("state.json", "status"):
        (tmp_path / "root/x" / name).touch()
        assert grants.is_alive(str(path.parent))
        (tmp_path / "root/x" / name).unlink()


def test_a_container_that_the_runtime_was_not_told_the_end_of(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first process decides, and after that what is in its cgroups."""
    monkeypatch.setattr(ended, "CGROUPS", str(tmp_path / "cgroup"))
    grant = made(host, tmp_path / "root")
    known_to_runc(tmp_path / "root/x")
    (grant / "cgroup").write_text("1:name=systemd:/d/x\n0::/d/x\n")
    (grant / "pid").write_text(f"{os.getpid()}\n")
    assert grants.is_alive(str(grant))
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    (grant / "pid").write_text(f"{child.pid}\n")
    assert not grants.is_alive(str(grant))
    for below in ("systemd/d/x", "d/x", "unified/d/x/inner"):
        folder = tmp_path / "cgroup" / below
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text("5\n")
        assert grants.is_alive(str(grant))
        (folder / "cgroup.procs").write_text("")
        assert not grants.is_alive(str(grant))
    for name in ("cgroup", "pid"):
        (grant / name).write_text("?")
        assert grants.is_alive(str(grant))


def test_a_look_at_many(host: Host, tmp_path: Path) -> None:
    """The ledger is content with a folder and a process, and looks closely where one of them is not there."""
    grant = made(host, tmp_path / "root")
    text = json.loads((grant / "grant.json").read_text())
    rewrite(grant / "grant.json", {"creator": text["creator"] | {"start": 1}})
    (grant / "pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "root/x").mkdir(parents=True)
    for roots in (None, grants.Roots()):
        assert (grants.living(str(grant), roots) is None) is (roots is None)
    (tmp_path / "root/x").rmdir()
    assert grants.living(str(grant), grants.Roots()) is None
    known_to_runc(tmp_path / "root/x")
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    (grant / "pid").write_text(f"{child.pid}\n")
    (grant / "cgroup").write_text("0::/none-such\n")
    assert grants.living(str(grant), grants.Roots()) is None
    read_ledger(host)
    assert not grant.exists()


@pytest.mark.parametrize("known", [True, False], ids=["the runtime's root is on a disk", "and is not"])
def test_a_grant_of_an_earlier_boot(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """A process of this boot can have its creator's pid and start time; here it is the creator itself."""
    if known:
        known_to_runc(tmp_path / "root/x")
    grant = made(host, tmp_path / "root")
    assert grants.is_alive(str(grant))
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(grants, "BOOT_ID", str(tmp_path / "boot_id"))
    assert not grants.is_alive(str(grant))
    assert read_ledger(host).holders == {}
    assert not grant.exists()


def test_boots_that_can_not_be_told_apart(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = made(host, tmp_path)
    monkeypatch.setattr(grants, "BOOT_ID", str(tmp_path / "none"))
    assert grants.is_alive(str(grant))


def test_a_grant_of_a_version_that_wrote_no_boot(host: Host, tmp_path: Path) -> None:
    path = made(host, tmp_path) / "grant.json"
    grant = json.loads(path.read_text())
    assert grant["creator"].pop("boot") == Path(grants.BOOT_ID).read_text().strip()
    path.chmod(0o644)
    path.write_text(json.dumps(grant))
    assert grants.is_alive(str(path.parent))


def rewrite(path: Path, change: dict[str, object], without: tuple[str, ...] = ()) -> None:
    grant = json.loads(path.read_text()) | change
    path.unlink()
    path.write_text(json.dumps({key: value for key, value in grant.items() if key not in without}))


@pytest.mark.parametrize("version", [2, 0, "1", None, [1]])
def test_a_grant_of_a_newer_version(host: Host, tmp_path: Path, version: object) -> None:
    """Nobody can tell what it takes, nor whether its container is there: nobody is let in, and it isn't taken back."""
    path = made(host, tmp_path) / "grant.json"
    creator = json.loads(path.read_text())["creator"]
    rewrite(
        path, {"version": version, "creator": creator | {"pid": 1, "start": 1}, "gpus": "elsewhere"}, ("id", "root")
    )
    with pytest.raises(RefusalError, match=r"x/grant\.json is damaged, or of a version .* that folder where"):
        read_ledger(host)
    with pytest.raises(RefusalError, match="of a version of runai-runtime that this one doesn't know"):
        read_grant(str(path.parent), "x")
    assert path.exists()
    rewrite(path, {"creator": creator | {"boot": "another"}})
    assert read_ledger(host).holders == {}
    assert not path.exists()


@pytest.mark.parametrize("without", ["overcommit", "libcuda", "enforcement", "boot", "room"])
def test_a_grant_of_a_version_that_lacked_a_key(host: Host, tmp_path: Path, without: str) -> None:
    path = made(host, tmp_path) / "grant.json"
    grant = json.loads(path.read_text())
    gpu = {"index": 0, "uuid": "GPU-0", "guarantee": 1, "limit": 3, "room": 2}
    grant["creator"].pop(without, None)
    grant["gpus"] = [{key: value for key, value in gpu.items() if key != without}]
    rewrite(path, grant, (without,))
    assert read_ledger(host).holders == {"GPU-0": {"x": 3 if without == "room" else 2}}
    assert read_grant(str(path.parent), "x")["gpus"] == grant["gpus"]


def test_a_create_that_ends_between_two_looks(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime made the container after the look for it, and was gone at the look for the runtime."""
    path = made(host, tmp_path / "root")

    def ended(pid: int) -> int:
        known_to_runc(tmp_path / "root/x")
        return 0

    monkeypatch.setattr(grants, "start_time", ended)
    assert grants.is_alive(str(path))


@pytest.mark.parametrize("creator", [None, [], "x", {}, {"pid": os.getpid()}])
def test_a_damaged_grant(host: Host, tmp_path: Path, creator: object) -> None:
    path = made(host, tmp_path) / "grant.json"
    path.chmod(0o644)
    path.write_text(json.dumps({"id": "x", "root": str(tmp_path), "creator": creator}))
    assert not grants.is_alive(str(path.parent))


@pytest.mark.parametrize(
    ("runtime", "session", "root"),
    [
        ("/usr/sbin/runc", "/run/user/0", "/run/runc"),
        ("/usr/bin/crun", "/run/user/0", "/run/user/0/crun"),
        ("/usr/bin/crun", "", "/run/crun"),
    ],
)
def test_the_root_of_a_runtime_that_is_given_none(
    monkeypatch: pytest.MonkeyPatch, runtime: str, session: str, root: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    assert grants.default_root(runtime) == root
