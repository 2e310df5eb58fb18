"""The runtime's log gets the sentence of a hook that refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.unit.hook.container import HOME, Container, check_refused


@pytest.fixture
def log(debian: Container) -> Path:
    """The runtime's log, with a name that the shim notes down."""
    log = debian.base / "bundle" / "log.json"
    log.parent.mkdir()
    log.write_text("what the runtime wrote\n")
    log.chmod(0o640)
    os.chown(log, 1, 2)
    (debian.state / "log").write_text(str(log))
    debian.file(f'{HOME}/glibc-hwcaps/a"b\\c\x01/libcuda.so.1', b"x")
    os.mkfifo(debian.root / HOME[1:] / 'glibc-hwcaps/a"b\\c\x01/libcuda.so.2')
    return log


def test_log_gets_the_sentence(debian: Container, log: Path) -> None:
    with log.open("a") as opened:
        result = debian.create()
        opened.write("error executing hook\n")
    check_refused(result, "libcuda.so.2 can't be covered")
    first, line = log.read_text().splitlines()
    assert first == "what the runtime wrote"
    entry = json.loads(line)
    assert (entry["level"], entry["msg"] + "\n") == ("error", result.stderr)
    assert len(entry["time"]) == len("2000-01-01T00:00:00Z")
    facts = log.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (1, 2, 0o640)
    assert [path.name for path in log.parent.iterdir()] == ["log.json"]


@pytest.mark.parametrize("kind", ["link", "FIFO", "nothing", "folder", "relative"])
def test_log_that_is_none(debian: Container, log: Path, kind: str) -> None:
    log.unlink()
    if kind == "link":
        log.symlink_to(debian.on_host("victim", b"victim"))
    elif kind == "FIFO":
        os.mkfifo(log)
    elif kind == "folder":
        log.mkdir()
    elif kind == "relative":
        (debian.state / "log").write_text("log.json")
    check_refused(debian.create(), "libcuda.so.2 can't be covered")
    assert not log.is_file() or kind == "link"
    assert [path.name for path in log.parent.iterdir()] == (["log.json"] if kind in ("link", "FIFO", "folder") else [])


def test_poststop_leaves_the_log_alone(debian: Container, log: Path) -> None:
    (debian.state / "plan").unlink()
    (debian.state / "plan").mkdir()
    check_refused(debian.stage("poststop"), "can't be removed")
    assert log.read_text() == "what the runtime wrote\n"


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_log_that_others_write_too(debian: Container, log: Path, size: int) -> None:
    """A person's `runc --log /var/log/runc.log`: what it holds already stays."""
    before = ("x" * 99 + "\n") * (size // 100)
    log.write_text(before)
    check_refused(debian.create(), "libcuda.so.2 can't be covered")
    text = log.read_text()
    assert text.startswith(before)
    assert len(text[len(before) :].splitlines()) == 1
