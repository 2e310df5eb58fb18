"""A Docker host with runai-runtime, as tests, demo and bench put it together."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from tests.docker import images
from tests.docker.engine import Engine
from tests.simgpu.host import SimHost

NATIVE = Path(sysconfig.get_path("platlib"), "runai_runtime/native")


def native(folder: Path, runtime: str = "/usr/sbin/runc") -> dict[str, Any]:
    """A configuration of runai-runtime for this host's own driver, with all of its own under one folder."""
    return {
        "runtime": runtime,
        "state": str(folder / "state"),
        "libvgpu": str(NATIVE),
        "hook": str(NATIVE / "runai-hook"),
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

    def __init__(self, engine: Engine, simhost: SimHost, config: dict[str, Any], program: Path) -> None:
        self.engine = engine
        self.simhost = simhost
        self.config = config
        self.program = program
        self.state = Path(config["state"])

    def arguments(self, *args: str | Path, memory: str | None, runtime: str = "runai") -> list[str]:
        """What `docker run` is given before the image."""
        asked = [] if memory is None else ["--env", f"RUNAI_GPU_MEMORY={memory}"]
        return ["--network=none", f"--runtime={runtime}", *asked, *map(str, args)]

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
