"""A simulated GPU host in a folder: FOLDER/lib, FOLDER/bin and FOLDER/dev, as a host with a driver has them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .build import THIS_RELEASE, Release, build, source_hash
from .config import HostConfig
from .mig import write_proc

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(tempfile.gettempdir()) / f"runai-simgpu-{os.getuid()}"
"""Where the user side is built, a folder a version of its sources, so that hosts in other checkouts keep theirs."""
START_SECONDS, STOP_SECONDS = 10, 5
MNT_DETACH = 2


class SimHost:
    """A context manager: the host is up inside the `with`, and nothing of it is mounted or runs after.

    `config` is what config.HostConfig.parse reads; None is one RTX 2080 Ti of 10989 MiB. `release` is how its driver's
    exports differ from the usual.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any] | None = None, *, release: Release = THIS_RELEASE
    ) -> None:
        self.folder = folder.absolute()
        self.host = HostConfig.parse(config)
        self._config = config
        self._release = release
        self._kernel: subprocess.Popen[bytes] | None = None

    @property
    def lib(self) -> Path:
        """Folder of the driver's libraries."""
        return self.folder / "lib"

    @property
    def bin(self) -> Path:
        """Folder of nvidia-smi."""
        return self.folder / "bin"

    @property
    def dev(self) -> Path:
        """Folder of the device nodes."""
        return self.folder / "dev"

    @property
    def proc(self) -> Path:
        """What a host has in /proc/driver."""
        return self.folder / "proc/driver"

    def __enter__(self) -> SimHost:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Build what isn't built, lay out the folder, mount the nodes. Raises RuntimeError where that fails."""
        built = build(CACHE / source_hash(self._release)[:16], self._release)
        for part in (self.lib, self.bin):
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(built / part.name, part, symlinks=True)
        self._mount()

    def plug(self, config: Mapping[str, Any] | None) -> None:
        """Have the GPUs of `config` instead, as when some come or go. The driver's files stay as they are."""
        self.host = HostConfig.parse(config)
        self._config = config
        self.stop()
        self._mount()

    def _mount(self) -> None:
        _unmount(self.dev)
        self.dev.mkdir(parents=True, exist_ok=True)
        parts = [part.instance for part in self.host.instances if part.instance is not None]
        write_proc(
            self.proc, [gpu.minor for gpu in self.host.gpus], [(self.host.minor_of(part), part) for part in parts]
        )
        command = [sys.executable, "-m", f"{__package__}.kernel", str(self.dev)]
        if self._config is not None:
            config = self.folder / "config.json"
            config.write_text(json.dumps(self._config))
            command += ["--config", str(config)]
        log = self.folder / "kernel.log"
        with log.open("wb") as output:
            # Its input is how it learns that this process is gone, however that came; and no Ctrl-C reaches it.
            self._kernel = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        try:
            self._wait(log)
        except BaseException:
            self.stop()
            raise

    def _wait(self, log: Path) -> None:
        assert self._kernel is not None
        for _ in range(START_SECONDS * 100):
            if (self.dev / "nvidiactl").exists():
                return
            if self._kernel.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"simgpu: the kernel side does not start:\n{log.read_text()}")

    def stop(self) -> None:
        """Unmount and end the kernel side. What still has a node open gets ENOTCONN from then on."""
        if self._kernel is not None:
            with self._kernel:
                self._kernel.terminate()
                try:
                    self._kernel.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._kernel.kill()
            self._kernel = None
        _unmount(self.dev)

    def state(self) -> dict[str, Any]:
        """All that the kernel side tells: kernel.DeviceNodes.state()."""
        value: dict[str, Any] = json.loads((self.dev / ".state").read_text())
        return value

    def used(self, gpu: int = 0) -> int:
        """Bytes of a GPU that are really taken, without what is reserved."""
        return int(self.state()["gpus"][gpu]["used"])

    def processes(self, gpu: int = 0) -> dict[int, int]:
        """Bytes really taken by process (pids of this side), contexts and managed memory included."""
        return {process["pid"]: process["used"] for process in self.state()["gpus"][gpu]["processes"]}

    def environment(self) -> dict[str, str]:
        """os.environ for a program on this host: the driver's libraries and programs in front."""
        path = f"{self.bin}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        return {**os.environ, "LD_LIBRARY_PATH": str(self.lib), "PATH": path}


def _unmount(folder: Path) -> None:
    """Take a mount away, one that a crashed run left behind included."""
    with contextlib.suppress(OSError), open("/proc/self/mounts", encoding="utf-8") as mounts:
        mounted = sum(line.split()[1].encode().decode("unicode_escape") == str(folder) for line in mounts)
        for _ in range(mounted):
            ctypes.CDLL(None).umount2(str(folder).encode(), MNT_DETACH)
