"""A clean Debian 12 with an engine of its own: a tree that ./dev has made, under a layer that is this run's alone.

It is a mount namespace whose root is that tree. Cgroups, devices and pids are the host's; of the host's files only the
folders that are named are there. The engine is the tree's, with its files where a system has them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.docker import images
from tests.docker.place import CGROUPS, EngineError, Place

TREES = "/var/lib/runai-dev/debian-12-"
DEV = Path(__file__).parents[2] / "dev"
START_SECONDS = 30.0
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "COLUMNS": "120"}

ENTER = r"""
set -e
data=$1
shift
mkdir "$data/upper" "$data/work" "$data/root" "$data/docker"
mount -t overlay overlay -o "lowerdir=$TREE,upperdir=$data/upper,workdir=$data/work" "$data/root"
for folder; do
    mkdir -p "$data/root$folder"
    mount --rbind "$folder" "$data/root$folder"
done
mkdir -p "$data/root/var/lib/docker"
mount --bind "$data/docker" "$data/root/var/lib/docker"
cd "$data/root"
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount --rbind /sys sys
mount --rbind /dev dev
pivot_root . mnt
umount -l /mnt
echo ready
exec sleep infinity
"""


def tree() -> str:
    """The folder of what ./dev has made: its name has a digest of the packages in it."""
    (packages,) = re.findall(r"^in_tree=(.*)$", DEV.read_text(encoding="utf-8"), re.MULTILINE)
    return TREES + hashlib.sha256(packages.encode()).hexdigest()[:12]


# The tree has no systemd.
SYSTEMCTL = """\
#!/bin/sh
[ "$*" = "reload docker" ] && kill -HUP "$(cat /run/docker.pid)"
"""


class Debian:
    """A context manager. FOLDERS: the host's that are there as well, with what is mounted in them."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._processes: list[subprocess.Popen[bytes]] = []
        self.place = Place.take()

    def __enter__(self) -> Debian:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if ids := self.docker("ps", "-aq").split():
                self.docker("rm", "--force", "--volumes", *ids)
        finally:
            self._stop()

    def path(self, inside: str) -> Path:
        """The file that the Debian has at that path, to be read: an absolute link on the way leads to the host's."""
        return Path(f"/proc/{self._processes[0].pid}/root{inside}")

    def attempt(self, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """A command, inside."""
        done = subprocess.run(self._inside(words), env=ENVIRONMENT, input=stdin, capture_output=True, check=False)
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *words: str | Path, stdin: bytes = b"") -> str:
        """The same, which must succeed; what it prints."""
        done = self.attempt(*words, stdin=stdin)
        if done.returncode:
            raise EngineError(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def write(self, inside: str, text: str) -> None:
        """Have TEXT in the file at that path, in a folder that is made if need be."""
        script = 'mkdir -p "${1%/*}" && cat >"$1"'
        self.run("/bin/sh", "-c", script, "sh", inside, stdin=text.encode())

    def docker(self, *words: str | Path) -> str:
        return self.run("docker", *words)

    def popen(self, *words: str | Path) -> subprocess.Popen[str]:
        """A command with pipes, that is talked to."""
        return subprocess.Popen(
            self._inside(words), env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def reload(self) -> None:
        """Have docker read its daemon.json."""
        before = self._log().count("Reloaded configuration")
        self.run("systemctl", "reload", "docker")
        self._wait(lambda: self._log().count("Reloaded configuration") > before)

    def files(self) -> set[str]:
        """All that lies on it, but for what dpkg and the engine keep for themselves."""
        beside = "-path /var/lib/dpkg -o -path /var/lib/docker -o -path /var/log -o -path /var/cache -o -path /tmp"
        return set(self.run("find", "/", "-xdev", "(", *beside.split(), ")", "-prune", "-o", "-print").splitlines())

    def _inside(self, words: Sequence[str | Path]) -> list[str]:
        return ["/usr/bin/nsenter", f"--mount=/proc/{self._processes[0].pid}/ns/mnt", *map(str, words)]

    def _start(self) -> None:
        mount = ["/usr/bin/unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", ENTER, "sh"]
        self._spawn([*mount, str(self.place.data), *map(str, self._folders)], {"TREE": tree()})
        self._wait(lambda: "ready" in self._log())
        settings: dict[str, Any] = {
            "bridge": "none",
            "cgroup-parent": f"/{self.place.cgroup}",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "iptables": False,
            "storage-driver": "overlay2",
            "shutdown-timeout": 1,
        }
        self.write("/usr/bin/systemctl", SYSTEMCTL)
        self.run("chmod", "755", "/usr/bin/systemctl")
        self.write("/etc/docker/daemon.json", json.dumps(settings, indent=2) + "\n")
        self._spawn(self._inside(["/usr/sbin/dockerd"]), {})
        self._wait(lambda: self.attempt("docker", "version").returncode == 0)
        archive = images.archive(images.BUSYBOX).read_bytes()
        self.run("docker", "import", "--change", 'CMD ["/bin/sh"]', "-", images.BUSYBOX, stdin=archive)

    def _spawn(self, command: list[str], more: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a process that ends with this one, and whose children are found in the place's cgroup if it can't."""
        top = next(top for top in (CGROUPS, CGROUPS / "unified", CGROUPS / "pids") if (top / "cgroup.procs").exists())
        group = top / self.place.cgroup / "daemons"
        group.mkdir(parents=True, exist_ok=True)
        into = ["/bin/sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"]
        with (self.place.data / "log").open("ab") as log:
            process = subprocess.Popen(
                ["/usr/bin/setpriv", "--pdeathsig=KILL", *into, *command],
                env=ENVIRONMENT | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _log(self) -> str:
        return (self.place.data / "log").read_text(errors="replace")

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if any(process.poll() is not None for process in self._processes) or time.monotonic() > deadline:
                raise EngineError(f"the Debian in {self.place.data} is not as it should be:\n{self._log()[-3000:]}")
            time.sleep(0.05)

    def _stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()
        self.place.clear()
        self.place.release()
