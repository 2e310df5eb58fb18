"""./dev demo: one small GPU shared by containers, before your eyes.

On a host with an NVIDIA GPU it is that one; else a simulated GPU host stands in: a GeForce RTX 2080 Ti of 10989 MiB.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import tempfile
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

CUDASH = "/usr/local/bin/cudash"


class Demo:
    """A Docker host with runai-runtime, and a person at its keyboard."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def show(self, *arguments: str, keep: str = "") -> None:
        """Type a docker command, and show what comes of it (only lines with KEEP in them)."""
        print(f"\033[1m$ docker {shlex.join(arguments)}\033[0m", flush=True)
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
    tools = (f"--volume={program('cudash')}:{CUDASH}:ro",)
    tell("The whole GPU:")
    demo.show(*run, "-e", "RUNAI_GPU_MEMORY=1", images.BUSYBOX, "nvidia-smi")
    tell("0.3 of it:")
    demo.show(*run, "-e", "RUNAI_GPU_MEMORY=0.3", images.BUSYBOX, "nvidia-smi")
    tell("A neighbour takes 1 GiB and keeps it:")
    demo.show(
        *("run", "-d", "--name=neighbour", "--network=none", "--runtime=runai", "-e", "RUNAI_GPU_MEMORY=2g", *tools),
        *(images.BUSYBOX, CUDASH, "primary", "alloc 1g", "info", "sleep 60", "set 0", "info"),
    )
    tell("Another container takes all it can get, 64 MiB at a time. Its 3 GiB end where they should:")
    demo.show(*run, "-e", "RUNAI_GPU_MEMORY=3g", *tools, images.BUSYBOX, CUDASH, "primary", "fill 64m", "info")
    tell("The neighbour never noticed:")
    demo.show("exec", "neighbour", "nvidia-smi", keep="MiB /")
    demo.show("logs", "neighbour")
    tell("A share that can't be had is refused, with a reason:")
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
        try:
            play(Demo(engine))
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                engine.remove_containers()
    return 0


if __name__ == "__main__":
    sys.exit(main())
