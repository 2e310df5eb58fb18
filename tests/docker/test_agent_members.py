"""Which processes are a container's, where no pid namespace tells: in a cgroup that it shares, and below that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.agents import wait_for
from tests.docker.host import Runai
from tests.docker.place import CGROUPS
from tests.programs.build import program

RUNC = Path("/usr/sbin/runc")

THIEF = "/busybox sleep 1000 & exec 3>&1; echo $! >&3; /rawgpu swaporphan 2048"
"""What a dead taker took is with a child, beside one that has to do with nothing."""


class Bundle:
    """A container that no engine starts, so that nobody else ends what its first process leaves behind.

    It has the host's pids, and shares its cgroup with all bundles of that cgroupsPath.
    """

    def __init__(self, folder: Path, cgroup: str, *command: str) -> None:
        self.folder = folder
        self.root = folder.parent / "r"
        self.id = folder.name
        self.runtime = RUNC
        for name in ("dev", "proc", "sys"):
            (folder / "rootfs" / name).mkdir(parents=True)
        shutil.copy("/usr/bin/busybox", folder / "rootfs/busybox")
        shutil.copy(program("rawgpu", "-static"), folder / "rootfs/rawgpu")
        subprocess.run([RUNC, "spec", "-b", folder], check=True)
        spec = json.loads((folder / "config.json").read_text())
        spec["process"] |= {"args": list(command), "terminal": False}
        spec["process"]["env"].append("RUNAI_GPU_MEMORY=1g")
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
        spec["linux"]["cgroupsPath"] = cgroup
        spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "pid"]
        (folder / "config.json").write_text(json.dumps(spec))

    def start(self, runtime: Path) -> subprocess.Popen[str]:
        """Its input and output, of a runtime that has ended when the container runs."""
        self.runtime = runtime
        starting = subprocess.Popen(
            [runtime, "--root", self.root, "run", "--detach", "--bundle", self.folder, self.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert starting.wait(60) == 0
        return starting

    def first(self) -> int:
        state = subprocess.run(
            [self.runtime, "--root", self.root, "state", self.id], stdout=subprocess.PIPE, text=True, check=True
        )
        return int(json.loads(state.stdout)["pid"])

    def delete(self) -> None:
        subprocess.run([self.runtime, "--root", self.root, "delete", "--force", self.id], check=False)


@pytest.fixture
def bundle(runai_agent: Runai, tmp_path: Path) -> Iterator[Callable[..., Bundle]]:
    """Makes bundles in one cgroup of the engine's."""
    made: list[Bundle] = []

    def make(name: str, *command: str) -> Bundle:
        made.append(Bundle(tmp_path / name, f"/{runai_agent.engine.place.cgroup}/shared", *command))
        return made[-1]

    yield make
    for one in made:
        one.delete()


def lives(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def cgroup_of(pid: int) -> Path:
    """That in which its devices are bounded."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    paths = {name: path for _, name, path in lines}
    return CGROUPS / ("devices" if "devices" in paths else "") / paths.get("devices", paths[""])[1:]


def move_below(pid: int, name: str) -> None:
    """As a container does that may make cgroups of its own; the engine's are removed with it."""
    below = cgroup_of(pid) / name
    below.mkdir()
    (below / "cgroup.procs").write_text(str(pid))


def test_a_container_with_the_hosts_pids_ends_as_a_whole(runai_agent: Runai, bundle: Callable[..., Bundle]) -> None:
    """All of it, and nobody else: not the container that was put into the same cgroup."""
    beside = bundle("beside", "/busybox", "sleep", "1000")
    thief = bundle("thief", "/busybox", "sh", "-c", THIEF)
    with beside.start(RUNC), thief.start(runai_agent.program) as talk:
        neighbour, first = beside.first(), thief.first()
        assert talk.stdout and talk.stdin
        other = int(talk.stdout.readline())
        assert cgroup_of(neighbour) == cgroup_of(other)
        move_below(other, "an odd\\name: ..")
        assert talk.stdout.readline() == "ready\n"
        talk.stdin.close()
        assert talk.stdout.readline() == "taken\n"
        wait_for(lambda: not lives(first))
        wait_for(lambda: not lives(other))
        wait_for(lambda: runai_agent.simhost.used() == 0)
        assert "with its container" in (runai_agent.state / "thief/agent.log").read_text()
        assert lives(neighbour)
        os.kill(neighbour, signal.SIGKILL)
