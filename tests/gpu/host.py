"""A Docker host with a real GPU, for the tests and the bench: the engine, what runs in containers, and NVML outside."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pynvml

from runai_runtime.configure import configure
from runai_runtime.host import read_host
from runai_runtime.inventory import Inventory, read_inventory
from tests.docker import images
from tests.docker.engine import Engine

CUDASH, CUDABENCH, FOOTPRINT = "/cudash", "/cudabench", "/footprint"  # not under /usr: that may be a read-only volume
MIB = 1 << 20


class GpuHost:
    """A private engine with runai-runtime on a host with a GPU. The first GPU is the one that is used."""

    def __init__(self, engine: Engine, image: str, programs: Path | None, inventory: Inventory) -> None:
        self.engine, self.image, self.inventory = engine, image, inventory
        self._programs = programs

    def program(self, name: str) -> Path:
        """A compiled test program: from the folder that was given (where no compiler is), or compiled now."""
        if self._programs is not None:
            return self._programs.absolute() / name
        from tests.programs.build import program

        return program(name)

    def brought(self, path: str) -> Path | None:
        """A file of the folder that was given which isn't compiled here, or None."""
        found = self._programs and self._programs.absolute() / path
        return found if found and found.exists() else None

    @property
    def tools(self) -> list[str]:
        """Docker options that put the test programs into a container."""
        pairs = (("cudash", CUDASH), ("cudabench", CUDABENCH), ("footprint", FOOTPRINT))
        return [f"--volume={self.program(name)}:{target}:ro" for name, target in pairs]

    def share(self, memory: str, *options: str) -> list[str]:
        """Docker options of a container with a share."""
        return ["--network=none", "--runtime=runai", f"--env=RUNAI_GPU_MEMORY={memory}", *self.tools, *options]

    def native(self) -> list[str]:
        """Docker options of a container with the whole GPU and the driver's own libraries, under runc."""
        nodes = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", f"nvidia{self.inventory.gpus[0].minor}"]
        mounts = [f"--volume={file.path}:/driver/{name}:ro" for file in self.inventory.libraries for name in file.names]
        devices = [f"--device=/dev/{node}" for node in nodes]
        return ["--network=none", "--runtime=runc", "--env=LD_LIBRARY_PATH=/driver", *devices, *mounts, *self.tools]

    def user_space(self) -> list[str]:
        """Docker options that lend the host's user space to a container, for programs that are installed there."""
        folders = [folder for folder in ("/usr", "/opt") if Path(folder).is_dir()]
        mounts = [f"--volume={folder}:{folder}:ro" for folder in folders]
        writable = [
            "--env=HOME=/tmp",
            "--env=TRITON_CACHE_DIR=/tmp/triton",
            "--env=TORCHINDUCTOR_CACHE_DIR=/tmp/inductor",
        ]
        files = [path for path in ("/etc/ld.so.cache", "/etc/alternatives") if Path(path).exists()]
        path = "--env=PATH=/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*mounts, *(f"--volume={path}:{path}:ro" for path in files), path, *writable]

    def run(self, options: Sequence[str], *command: str, check: bool = True) -> CompletedProcess[str]:
        return self.engine.docker("run", "--rm", *options, self.image, *command, check=check, timeout=300)

    def python(
        self, memory: str, script: Path, *arguments: str, options: Sequence[str] = (), check: bool = True
    ) -> CompletedProcess[str]:
        """Run a Python program of this suite, with the interpreter that runs the suite, in a container."""
        all_options = self.python_options(memory, script, options)
        return self.run(all_options, sys.executable, "/program.py", *arguments, check=check)

    def python_options(self, memory: str, script: Path, options: Sequence[str] = ()) -> list[str]:
        """For a container in which SCRIPT is /program.py."""
        return [*self.share(memory, *self.user_space(), f"--volume={script}:/program.py:ro", *options)]

    @contextlib.contextmanager
    def background(self, options: Sequence[str], *command: str) -> Iterator[str]:
        """A container that runs meanwhile; its id."""
        container = self.engine.docker("run", "-d", *options, self.image, *command).stdout.strip()
        try:
            yield container
        finally:
            self.engine.docker("rm", "-f", container)

    def wait_for(self, container: str, text: str) -> str:
        """A container's output, once TEXT is in it."""
        for _ in range(300):
            logs = self.engine.docker("logs", container).stdout
            if text in logs:
                return logs
            time.sleep(0.1)
        raise AssertionError(f"{text!r} never came: {logs!r}")

    def used(self, gpu: int = 0) -> int:
        """Bytes of a GPU that are in use, by NVML on the host: what the device really gave."""
        device = pynvml.nvmlDeviceGetHandleByUUID(self.inventory.gpus[gpu].uuid)
        return int(pynvml.nvmlDeviceGetMemoryInfo(device).used)


@contextlib.contextmanager
def start(
    binaries: Path | None, image: Path | None, programs: Path | None, enforcement: str = "auto"
) -> Iterator[GpuHost]:
    """A host with the machine's own GPU.

    binaries: an engine's programs, if not the system's; image: a tar of a root file system, if not busybox's;
    programs: compiled test programs.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runai-gpu-", dir="/var/tmp")))
        program = folder / "runai-runtime"
        engine = Engine({"runai": program}, binaries=binaries)
        runtime = {"runtime": str(engine.program("runc")), "state": "/run/runai-gpu-test", "enforcement": enforcement}
        configure(runtime, folder / "config.json", program)
        stack.enter_context(engine)
        name = "runai-test:gpu"
        if image is None:
            name = images.load(engine, images.BUSYBOX)
        else:
            engine.docker("import", image, name, timeout=300)
        inventory = read_inventory(read_host(str(folder / "config.json")))
        pynvml.nvmlInit()
        yield GpuHost(engine, name, programs, inventory)


def facts(host: GpuHost) -> str:
    gpu = host.inventory.gpus[0]
    return json.dumps(
        {
            "gpu": gpu.name,
            "driver": host.inventory.driver,
            "total_mib": gpu.total // MIB,
            "reserved_mib": gpu.reserved // MIB,
            "context_mib": gpu.context // MIB,
        }
    )
