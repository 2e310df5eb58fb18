"""A Docker host with runai-runtime, as tests, demo and bench put it together."""

from __future__ import annotations

import copy
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

from runai_runtime.configure import configure
from runai_runtime.grant import KEPT
from tests.docker import images
from tests.docker.engine import Engine
from tests.simgpu.host import SimHost

CUDASH = "/usr/local/bin/cudash"
NATIVE = Path(sysconfig.get_path("platlib"), "runai_runtime/native")


def native(folder: Path, runtime: str = "/usr/sbin/runc") -> dict[str, Any]:
    """A configuration of runai-runtime for this host's own driver, with all of its own under one folder."""
    return {
        "runtime": runtime,
        "state": str(folder / "s"),  # as short as can be, for the agents' sockets
        "libvgpu": str(NATIVE),
        "fitted": str(folder / "s/libvgpu"),
        "hook": str(NATIVE / "runai-hook"),
        "cdi_spec_dirs": [str(folder / "cdi")],  # not this host's own
    }


def configuration(folder: Path, simhost: SimHost, runtime: str = "/usr/sbin/runc") -> dict[str, Any]:
    """The same for a simulated host."""
    driver = {
        "libraries": [str(simhost.lib)],
        "programs": [str(simhost.bin)],
        "devices": str(simhost.dev),
    }
    return native(folder, runtime) | {"driver": driver}


class Runai:
    """A Docker host with runai-runtime: an engine, a simulated GPU host and what daemon.json registers."""

    def __init__(
        self, engine: Engine, simhost: SimHost, config: dict[str, Any], program: Path, runtime: str = "runai"
    ) -> None:
        self.runtime = runtime
        self.engine = engine
        self.simhost = simhost
        self.config = config
        self.program = program
        self.state = Path(config["state"])
        # dockerd sets up a network namespace, even an empty one, by running itself as a hook: almost half of all that a
        # container costs. With a user namespace of its own a container can't do without (with_network()).
        self.network = "none" if engine.remap else "host"

    @classmethod
    def configured(
        cls, engine: Engine, simhost: SimHost, config: dict[str, Any], home: Path, runtime: str = "runai"
    ) -> Runai:
        """With CONFIG written, and the program that the engine has registered as RUNTIME, in HOME."""
        program = home / "runai-runtime"
        configure(config, home / "config.json", program)
        return cls(engine, simhost, config, program, runtime)

    def with_network(self) -> Runai:
        """The same host, on which containers have a network namespace and dockerd's hook, as people's have."""
        other = copy.copy(self)
        other.network = "none"
        return other

    def arguments(self, *args: str | Path, memory: str | None, runtime: str | None = None) -> list[str]:
        """What `docker run` is given before the image."""
        asked = [] if memory is None else ["--env", f"RUNAI_GPU_MEMORY={memory}"]
        return [f"--network={self.network}", f"--runtime={runtime or self.runtime}", *asked, *map(str, args)]

    def run(
        self,
        *command: str | Path,
        memory: str | None = "3g",
        image: str = images.BUSYBOX,
        options: tuple[str | Path, ...] = (),
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """`docker run --rm` of a command in an image, with a share of the GPU unless memory is None."""
        arguments = self.arguments(*options, memory=memory)
        return self.engine.docker("run", "--rm", *arguments, image, *command, check=check)


class Container:
    """A container that runs in the background."""

    def __init__(
        self,
        runai: Runai,
        *command: str,
        memory: str | None = "3g",
        image: str = images.BUSYBOX,
        options: tuple[str, ...] = (),
    ) -> None:
        self.runai = runai
        arguments = runai.arguments(*options, memory=memory)
        self.id = runai.engine.docker("run", "-d", *arguments, image, *command).stdout.strip()

    def execute(self, *command: str) -> str:
        return self.runai.engine.docker("exec", self.id, *command).stdout

    def logs(self) -> str:
        return self.runai.engine.docker("logs", self.id).stdout

    def wait_for(self, text: str) -> str:
        """The logs, once TEXT is in them."""
        for _ in range(200):
            logs = self.logs()
            if text in logs:
                return logs
            time.sleep(0.05)
        raise AssertionError(f"{text!r} never came: {logs!r}")

    @property
    def grant(self) -> Path:
        return self.runai.state / self.id


def changed(runai: Runai, container: str) -> str:
    """What `docker diff` shows besides the mount points of the test's own volumes, sorted: docker has no order."""
    lines = sorted(runai.engine.docker("diff", container).stdout.splitlines())
    kept = ("C /usr", "C /usr/local", "C /usr/local/bin", f"A {CUDASH}", "C /etc", "C /dev", "C /usr/bin", "C /usr/lib")
    return "\n".join(line for line in lines if line not in kept and not line.startswith("C "))


def grants_in(state: Path) -> list[str]:
    """What lies in STATE besides what stays there."""
    return sorted({path.name for path in state.iterdir()} - KEPT)


def host_mounts(*own: Path) -> list[str]:
    """The host's mount points, without those of simulated GPUs, engines and tests, which others may start meanwhile.

    What an engine mounts for its containers is its own; what we would leave behind lies deeper than its root folders.
    OWN: folders of which nobody else makes use, in which all counts but what dockerd keeps for --network=host.
    """
    points = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kinds = {fields[4]: fields[fields.index("-") + 1] for fields in points}
    counted = tuple(f"{path}/" for path in own)
    engines, tests = ("/var/lib/runai-dev/", "/run/runai-dev/"), ("/var/tmp/runai-test-", "/tmp/pytest-of-")
    beside = (*engines, *tests, "/tmp/crun.")  # crun's, for a moment

    def counts(point: str) -> bool:
        if point.startswith(counted):
            return not point.endswith("/docker/netns/default")
        return not (kinds[point].startswith("fuse") or point.startswith(beside))

    return sorted(filter(counts, kinds))


def mounts_in(engine: Engine) -> list[str]:
    """Mount points below those that the engine itself makes: there must never be any."""
    roots = (str(engine.place.data), str(engine.place.state))
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(roots) and "/merged/" in point]
