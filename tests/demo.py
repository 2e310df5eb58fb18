"""./dev demo: one small GPU shared by containers, before your eyes.

On a host with an NVIDIA GPU it is that one; else a simulated GPU host stands in: a GeForce RTX 2080 Ti of 10989 MiB.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runai_runtime.configure import configure
from runai_runtime.errors import RefusalError
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import configuration, native
from tests.programs.build import program
from tests.simgpu.host import SimHost


class Demo:
    """A Docker host with runai-runtime, and a person at its keyboard."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def wait_for(self, container: str, text: str) -> None:
        """Until TEXT is in a container's output: 10 seconds at most."""
        for _ in range(100):
            if text in self.engine.docker("logs", container).stdout:
                return
            time.sleep(0.1)

    def show(self, *arguments: str, keep: str = "") -> None:
        """Type a docker command, and show what comes of it (only lines with KEEP in them)."""
        print(f"$ docker {shlex.join(arguments)}", flush=True)
        result = self.engine.docker(*arguments, check=False)
        for line in (result.stdout + result.stderr).splitlines():
            if keep in line:
                print(line)
        print(flush=True)


@contextlib.contextmanager
def gpu_host(folder: Path) -> Iterator[dict[str, Any]]:
    """A configuration for the host's own GPU, or for a simulated one."""
    if Path("/dev/nvidiactl").exists():
        print("This host has an NVIDIA GPU: the demo uses it.\n")
        yield native(folder)
        return
    print("This host has no NVIDIA GPU: a simulated one stands in.\n")
    with SimHost(folder / "gpu-host") as host:
        yield configuration(folder, host)


def tell(text: str) -> None:
    print(f"# {text}", flush=True)


def play(demo: Demo) -> None:
    run = ("run", "--rm", "--network=none", "--runtime=runai")
    tools = (f"--volume={program('cudash')}:/usr/local/bin/cudash:ro",)
    tell("The whole GPU:")
    demo.show(*run, "-e", "RUNAI_GPU_MEMORY=1", images.BUSYBOX, "nvidia-smi")
    tell("0.3 of it:")
    demo.show(*run, "-e", "RUNAI_GPU_MEMORY=0.3", images.BUSYBOX, "nvidia-smi")
    tell("A neighbour with 3 GiB takes 1 GiB and keeps it:")
    demo.show(
        *("run", "-d", "--name=neighbour", "--network=none", "--runtime=runai", "-e", "RUNAI_GPU_MEMORY=3g", *tools),
        *(images.BUSYBOX, "cudash", "primary", "alloc 1g", "sleep 600"),
    )
    demo.wait_for("neighbour", "alloc 1g ->")
    tell("A container with 0.3 takes all it can get, 64 MiB at a time (cudash is a shell of CUDA calls):")
    demo.show(
        *run, "-e", "RUNAI_GPU_MEMORY=0.3", *tools, images.BUSYBOX, "cudash", "primary", "info", "fill 64m", "info"
    )
    tell("Out of memory, within its share. The neighbour has what it had, and can have the rest of its own:")
    demo.show("exec", "neighbour", "nvidia-smi", keep="MiB /")
    demo.show("exec", "neighbour", "cudash", "primary", "alloc 512m")
    tell("A share that can't be had is refused, and nothing is started:")
    demo.show(*run, "-e", "RUNAI_GPU_MEMORY=200%", images.BUSYBOX, "nvidia-smi")


def main() -> int:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runai-demo-", dir="/var/tmp")))
        runtime = folder / "runai-runtime"
        try:
            configure(stack.enter_context(gpu_host(folder)), folder / "config.json", runtime)
        except RefusalError as refusal:
            print(f"demo: {refusal}", file=sys.stderr)
            return 1
        engine = stack.enter_context(Engine({"runai": runtime}))
        images.load(engine, images.BUSYBOX)
        play(Demo(engine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
