"""The private engine is an engine, and private."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.engine import Engine, EngineError
from tests.programs.build import program


def test_runs_a_container_under_runc(engine: Engine) -> None:
    engine.docker("run", "--rm", "--network=none", images.BUSYBOX, "true")


def test_exit_status_and_output_come_back(engine: Engine) -> None:
    done = engine.docker(
        "run", "--rm", "--network=none", images.BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 3", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_sockets_are_its_own(engine: Engine) -> None:
    for path in (engine.containerd_address, Path(engine.host.removeprefix("unix://"))):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert path.is_relative_to(engine.place.state)
    root = engine.docker("info", "--format", "{{.DockerRootDir}}").stdout.strip()
    assert Path(root).is_relative_to(engine.place.data)
    assert engine.docker("info", "--format", "{{.Driver}}").stdout == "overlay2\n"


def test_runs_a_dynamically_linked_program(engine: Engine, tmp_path: Path) -> None:
    made = program("dynamic")
    done = engine.docker("run", "--rm", "--network=none", f"--volume={made}:/dynamic:ro", images.BUSYBOX, "/dynamic")
    assert done.stdout == "libc.so.6 at work\n"


def test_runs_as_a_user(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--network=none", "--user=1000", images.BUSYBOX, "id", "-un")
    assert done.stdout == "user\n"


def test_crun_runs_here_too() -> None:
    with Engine(crun=True, default_runtime="crun") as engine:
        images.load(engine)
        engine.docker("run", "--rm", "--network=none", images.BUSYBOX, "true")


def test_live_restore_keeps_a_container_when_dockerd_is_killed() -> None:
    with Engine(live_restore=True) as engine:
        images.load(engine)
        ident = engine.docker("run", "--detach", "--network=none", images.BUSYBOX, "sleep", "600").stdout.strip()
        started = engine.docker("inspect", "--format", "{{.State.Pid}}", ident).stdout
        engine.restart_dockerd(kill=True)
        assert engine.docker("inspect", "--format", "{{.State.Running}} {{.State.Pid}}", ident).stdout == (
            f"true {started}"
        )


def test_two_at_once_do_not_meet(engine: Engine) -> None:
    with Engine() as other:
        assert other.host != engine.host
        assert other.docker("images", "--quiet").stdout == ""


def test_leaves_nothing_behind() -> None:
    with Engine() as engine:
        images.load(engine)
        place = engine.place
        engine.docker("run", "--detach", "--network=none", images.BUSYBOX, "sleep", "600")
        assert list(place.processes())
    assert not list(place.processes())
    assert str(place.data) not in Path("/proc/mounts").read_text()
    assert not place.data.exists()
    assert not place.state.exists()


def test_what_a_killed_run_left_is_gone_with_the_next_start() -> None:
    killed = os.fork()
    if killed == 0:
        engine = Engine()
        engine.start()
        images.load(engine)
        engine.docker("run", "--detach", "--network=none", images.BUSYBOX, "sleep", "4321")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    assert containers_with("4321")
    with Engine():
        assert not containers_with("4321")


def containers_with(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[0].endswith(b"sleep") and word.encode() in arguments:
            found.append(entry.parent.name)
    return found


def test_a_failed_start_shows_the_log() -> None:
    with pytest.raises(EngineError, match=r"(?s)dockerd ended with 1\..*nowhere"):
        Engine(default_runtime="nowhere").start()
