"""A host as the pages have it, and somebody at its terminal: a private engine, a simulated GPU, and the usual paths.

The engine, and what is typed, see copies of /etc, /opt and /usr/local/bin, into which runai-runtime is installed by the
README's own words. What a distribution would start or fetch is stood in for, in `stand_ins`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docker import images
from tests.docker.agents import wait_for
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, configuration
from tests.programs.build import program
from tests.simgpu.host import SimHost

COVERED = (Path("/etc"), Path("/opt"), Path("/usr/local/bin"))
IMAGE = "ubuntu"
TRAIN = ("cudash", "primary", "alloc 1g", "sleep 600")
ROWS, COLUMNS = 24, 80
SECONDS = 60


@dataclass
class Done:
    """What came of a command: its exit status, and what the terminal showed."""

    code: int
    said: str


class Desk:
    """A host and its administrator, with the engine started and nothing installed."""

    def __init__(self, engine: Engine, simhost: SimHost, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.state = folder / "s"
        self._search = folder / "stand-ins"
        etc = folder / "etc"
        (etc / "docker").mkdir(exist_ok=True)
        (etc / "docker/daemon.json").unlink(missing_ok=True)
        (etc / "docker/daemon.json").symlink_to(engine.place.data / "daemon.json")
        # A real host's driver would be found, and its state would lie where the pages say.
        values = configuration(folder, simhost)
        kept = {key: values[key] for key in ("state", "fitted", "cdi_spec_dirs", "driver")}
        (etc / "runai-runtime").mkdir()
        (etc / "runai-runtime/config.json").write_text(json.dumps(kept))
        (folder / "opt/runai-runtime").symlink_to(Path(sys.executable).parents[1])
        self._write_stand_ins()
        self._load_image()

    def type(self, command: str) -> Done:
        """What a terminal of ROWS and COLUMNS shows when a shell does COMMAND, until its end (SECONDS at most)."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        script = f"cd {shlex.quote(str(self.folder))} && {command}"  # nsenter leaves the folder
        shell = [*self.engine.enter(), "/usr/bin/timeout", "-s", "KILL", str(SECONDS), "/bin/sh", "-c", script]
        with subprocess.Popen(
            ["/usr/bin/setsid", "--ctty", "--wait", *shell],
            env=self._environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            said = b""
            with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
                while piece := os.read(ours, 65536):
                    said += piece
            os.close(ours)
        return Done(process.returncode, said.decode(errors="replace").replace("\r\n", "\n"))

    @contextlib.contextmanager
    def with_gpus_of(self, simhost: SimHost) -> Iterator[None]:
        """The host has the GPUs of another one, and none of its own."""
        path = self.folder / "etc/runai-runtime/config.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | {"driver": configuration(self.folder, simhost)["driver"]}))
        try:
            yield
        finally:
            path.write_text(before)

    def start_train(self) -> None:
        """Have a container `train` that holds memory of its 8 GiB."""
        if self.engine.docker("ps", "--quiet", "--filter=name=^train$").stdout:
            return
        options = ("--name=train", "--runtime=runai", f"--volume={program('cudash')}:{CUDASH}:ro")
        self.engine.docker("run", "-d", *options, "-e", "RUNAI_GPU_MEMORY=8g", IMAGE, *TRAIN)
        wait_for(lambda: "alloc 1g ->" in self.engine.docker("logs", "train").stdout)

    def make_bundle(self) -> Path:
        """A folder with a bundle that shows its share."""
        bundle = self.folder / "bundle"
        (bundle / "rootfs").mkdir(parents=True)
        archive = images.archive(images.BUSYBOX)
        subprocess.run(["/usr/bin/tar", "-xf", archive, "-C", bundle / "rootfs"], check=True)
        subprocess.run(["/usr/sbin/runc", "spec"], cwd=bundle, check=True)
        spec = json.loads((bundle / "config.json").read_text())
        spec["process"] |= {"terminal": False, "args": ["nvidia-smi"]}
        spec["process"]["env"].append("RUNAI_GPU_MEMORY=3g")
        spec["linux"]["cgroupsPath"] = f"/{self.engine.place.cgroup}/bundle"
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle

    def _load_image(self) -> None:
        """IMAGE for docker, podman and ctr, which all keep images of their own."""
        images.load(self.engine, images.BUSYBOX)
        self.engine.docker("tag", images.BUSYBOX, IMAGE)
        self.engine.docker("save", "--output", self.folder / "image.tar", IMAGE)
        for command in (
            f"podman import {images.archive(images.BUSYBOX)} docker.io/library/{IMAGE}",
            f"ctr image import image.tar && ctr image tag docker.io/library/{IMAGE}:latest {IMAGE}",
        ):
            done = self.type(command)
            assert done.code == 0, done.said

    def _environment(self) -> dict[str, str]:
        usual = self.engine.environment()
        search = f"{self._search}:/usr/local/bin:{usual['PATH']}"
        return usual | {"DOCKER_HOST": self.engine.host, "PATH": search, "TERM": "dumb", "NO_COLOR": "1"}

    def _write_stand_ins(self) -> None:
        """Programs that have to be told of the private engine, or that ask for what a test has not."""
        self._search.mkdir()
        place, docker = self.engine.place, shlex.join(self.engine.command())
        enter = 'for word; do shift; set -- "$@" "$word"; [ "$word" != run ] || set -- "$@" {}; done'
        inside = f"--cgroup-parent=/{place.cgroup}"
        podman = f"--root={place.data}/p --runroot={place.state}/p --tmpdir={place.state}/t --cgroup-manager=cgroupfs"
        podman += " --storage-driver=overlay --events-backend=file"
        limits = "--network=none --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024"
        texts = {
            "sudo": 'exec "$@"',
            "systemctl": (
                f'[ "$*" = "reload docker" ] && kill -HUP {self.engine.pid("dockerd")} || exit\n'
                f"until {docker} info --format '{{{{json .Runtimes}}}}' | grep -q runai; do sleep 0.05; done"
            ),
            "podman": (
                f"{enter.format(f'{limits} {inside}')}\nunset DOCKER_CONFIG\n"
                f'CONTAINERS_CONF=/dev/null exec /usr/bin/podman {podman} "$@"'
            ),
            "ctr": (
                f"{enter.format(f'--runc-root={place.state}/ctr --cgroup=/{place.cgroup}/ctr')}\n"
                f"CONTAINERD_ADDRESS={self.engine.containerd_address} CONTAINERD_NAMESPACE=runai-desk "
                f'exec {self.engine.program("ctr")} "$@"'
            ),
        }
        for name, text in texts.items():
            (self._search / name).write_text(f"#!/bin/sh\n{text}\n")
            (self._search / name).chmod(0o755)


@contextlib.contextmanager
def desk(folder: Path, simhost: SimHost) -> Iterator[Desk]:
    """In FOLDER, which has a short path on a disk. SIMHOST was started before: what is mounted later the engine may not
    see, as it has a mount namespace of its own.
    """
    covers = {path: folder / path.name for path in COVERED}
    subprocess.run(["/usr/bin/cp", "-a", "/etc", folder / "etc"], check=True)
    for cover in covers.values():
        cover.mkdir(exist_ok=True)
    with Engine(covered=covers) as engine:
        yield Desk(engine, simhost, folder)


def shape(line: str) -> str:
    """A line of a screen without what differs from one time to the next: figures, ids, bars, widths."""
    line = re.sub(r"[█░]+", "", line)
    line = re.sub(r"\b[0-9a-f]{12,}\b|GPU-[0-9a-f-]{36}", "ID", line)
    line = re.sub(r"\d+(?:[.:T-]\d+)*(?:e[+-]\d+)?", "0", line)
    return " ".join(line.split())
