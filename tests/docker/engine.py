"""A Docker engine of one's own: containerd and dockerd with their own sockets, state and data.

Nothing of the system's engine is used or seen, and nothing is left behind: the engine works in one of a few
numbered places, which it locks while it lives and clears before it starts, so that what a killed run left
there is gone with the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

# On a disk, for overlay2 can't lie on an overlay or a tmpfs; and short, for a socket's path ends at 107 bytes.
DATA = Path("/var/lib/runai-dev")
STATE = Path("/run/runai-dev")
PLACES = 32

CGROUPS = Path("/sys/fs/cgroup")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 30.0
STOP_SECONDS = 15.0

CONTAINERD_CONFIG = """\
version = 2
root = "{data}/containerd"
state = "{state}/containerd"
disabled_plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{state}/c.sock"
"""


class EngineError(Exception):
    """The engine did not start or stop; the message holds the ends of its logs."""


class Place:
    """One of the numbered places: folders for data and state, a cgroup, and the lock that owns all of it."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock = lock
        self.data = DATA / str(number)
        self.state = STATE / str(number)
        self.cgroup = f"runai-dev-{number}"

    @classmethod
    def take(cls) -> Place:
        """Lock the first free place, and clear each one that a killed run may have left."""
        DATA.mkdir(parents=True, exist_ok=True)
        STATE.mkdir(parents=True, exist_ok=True)
        taken: Place | None = None
        for number in range(PLACES):
            used = (DATA / str(number)).exists() or (STATE / str(number)).exists()
            if not used and taken is not None:
                continue
            place = cls._lock_number(number)
            if place is None:
                continue
            if used:
                place.clear()
            if taken is None:
                taken = place
            else:
                place.release()
        if taken is None:
            raise EngineError(f"all {PLACES} places under {DATA} are in use by other engines")
        taken.data.mkdir(mode=0o711)
        taken.state.mkdir(mode=0o711)
        return taken

    @classmethod
    def _lock_number(cls, number: int) -> Place | None:
        lock = os.open(DATA / f"{number}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return cls(number, lock)

    def clear(self) -> None:
        """End the daemons, shims and containers of this place, take its mounts and its folders away."""
        deadline = time.monotonic() + STOP_SECONDS
        while pids := set(self.processes()):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise EngineError(f"processes of {self.state} can't be ended: {sorted(pids)}")
            time.sleep(0.02)
        for mount in self._mounts():
            subprocess.run(["/usr/bin/umount", "--lazy", mount], check=False, capture_output=True)
        for folder in self._cgroup_folders():
            for inner in sorted(folder.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
                with contextlib.suppress(OSError):
                    inner.rmdir()
            with contextlib.suppress(OSError):
                folder.rmdir()
        for folder in (self.state, self.data):
            if folder.exists():
                shutil.rmtree(folder)

    def processes(self) -> Iterator[int]:
        """The pids of all that runs in this place."""
        yield from self._daemons()
        yield from self._contained()

    def release(self) -> None:
        os.close(self._lock)

    def _owns(self, path: str) -> bool:
        return any(path == str(top) or path.startswith(f"{top}/") for top in (self.data, self.state))

    def _daemons(self) -> Iterator[int]:
        """containerd, dockerd and the shims: processes of which an argument is a path of this place."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                program, *arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if Path(program).name.startswith(("containerd", "dockerd")) and any(map(self._owns, arguments)):
                    yield int(entry.name)

    def _cgroup_folders(self) -> Iterator[Path]:
        for top in (CGROUPS, *CGROUPS.glob("*/")):
            if (folder := top / self.cgroup).is_dir():
                yield folder

    def _contained(self) -> Iterator[int]:
        for folder in self._cgroup_folders():
            for procs in folder.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    yield from map(int, procs.read_text().split())

    def _mounts(self) -> list[str]:
        points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [point for point in reversed(points) if self._owns(point)]


class Engine:
    """A private containerd and dockerd; a context manager.

    runtimes: name -> program, as daemon.json registers them: a bare path and nothing else.
    default_runtime: which of them, or runc or crun, runs a container that names none.
    crun: the engine is set up so that crun can run, which needs one cgroup version (crun is then registered too).
    live_restore: containers outlive dockerd.
    binaries: a folder with another engine than the system's (unpacked packages, or just the programs).
    """

    def __init__(
        self,
        runtimes: Mapping[str, Path] | None = None,
        *,
        default_runtime: str = "runc",
        crun: bool = False,
        live_restore: bool = False,
        binaries: Path | None = None,
    ) -> None:
        self.runtimes = dict(runtimes or {})
        if crun:
            self.runtimes["crun"] = Path("/usr/bin/crun")
        self.default_runtime = default_runtime
        self.live_restore = live_restore
        self._one_cgroup_version = crun and (CGROUPS / "unified").is_dir()
        self._folders = [] if binaries is None else [binaries / "usr/sbin", binaries / "usr/bin", binaries]
        self._folders += [Path(folder) for folder in SYSTEM_PATH.split(":")]
        self._place: Place | None = None
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def place(self) -> Place:
        if self._place is None:
            raise EngineError("the engine is not started")
        return self._place

    @property
    def host(self) -> str:
        """The value of DOCKER_HOST for this engine."""
        return f"unix://{self.place.state}/d.sock"

    @property
    def containerd_address(self) -> Path:
        return self.place.state / "c.sock"

    def runtime_root(self, runtime: str) -> Path:
        """The --root that containerd gives to the runtime of that name."""
        return self.place.state / f"docker/runtime-{runtime}/moby"

    def program(self, name: str) -> Path:
        """The engine's own program of that name, never what PATH happens to name."""
        for folder in self._folders:
            if (path := folder / name).exists():
                return path
        raise EngineError(f"there is no {name} in {', '.join(map(str, self._folders))}")

    def start(self) -> None:
        self._place = Place.take()
        try:
            self._configure()
            self._start_containerd()
            self._start_dockerd()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Remove the containers, end the daemons and leave nothing behind."""
        if self._place is None:
            return
        try:
            self.remove_containers()
            self._end("dockerd")
            self._end("containerd")
        finally:
            self._daemons.clear()
            place, self._place = self._place, None
            place.clear()
            place.release()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def command(self, *args: str | Path) -> list[str]:
        """The docker client's command line for this engine."""
        return [str(self.program("docker")), "-H", self.host, *map(str, args)]

    def environment(self) -> dict[str, str]:
        """The client's environment: nothing of the person's own docker configuration."""
        home = str(self.place.state)
        return {"PATH": self._search_path(), "HOME": home, "DOCKER_CONFIG": home, "LANG": "C.UTF-8"}

    def docker(
        self, *args: str | Path, check: bool = True, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run one docker command to its end. With check, a failure raises with what the command printed."""
        done = subprocess.run(
            self.command(*args),
            env=self.environment(),
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise EngineError(f"docker {' '.join(map(str, args))}: exit {done.returncode}: {said}")
        return done

    def popen(self, *args: str | Path) -> subprocess.Popen[str]:
        """Start a docker command with pipes, for a container that is talked to while it runs."""
        return subprocess.Popen(
            self.command(*args),
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def remove_containers(self) -> None:
        """Remove every container of this engine, running or not."""
        daemon = self._daemons.get("dockerd")
        if daemon is None or daemon.poll() is not None:
            return
        if ids := self.docker("ps", "--all", "--quiet", "--no-trunc").stdout.split():
            self.docker("rm", "--force", "--volumes", *ids)

    def restart_dockerd(self, *, kill: bool = False) -> None:
        """End dockerd (with kill: by SIGKILL, as a crash would) and start it again; containerd stays."""
        if kill:
            self._daemons["dockerd"].kill()
        self._end("dockerd")
        self._start_dockerd()

    def log(self, daemon: str = "dockerd", lines: int = 20) -> str:
        """The last lines that a daemon wrote."""
        path = self.place.data / f"{daemon}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _search_path(self) -> str:
        return ":".join(map(str, self._folders))

    def _configure(self) -> None:
        place = self.place
        (place.data / "containerd.toml").write_text(CONTAINERD_CONFIG.format(data=place.data, state=place.state))
        configuration = {
            "hosts": [self.host],
            "containerd": str(self.containerd_address),
            "data-root": str(place.data / "docker"),
            "exec-root": str(place.state / "docker"),
            "pidfile": str(place.state / "docker.pid"),
            "storage-driver": "overlay2",
            "cgroup-parent": f"/{place.cgroup}",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "default-runtime": self.default_runtime,
            "runtimes": {name: {"path": str(path)} for name, path in self.runtimes.items()},
            "live-restore": self.live_restore,
            "iptables": False,
            "bridge": "none",
            "ip-forward": False,
            "ip-masq": False,
            # Going below zero needs CAP_SYS_RESOURCE.
            "oom-score-adjust": 0,
            "shutdown-timeout": 1,
        }
        (place.data / "daemon.json").write_text(json.dumps(configuration, indent=4))

    def _start_containerd(self) -> None:
        command = [str(self.program("containerd")), "--config", str(self.place.data / "containerd.toml")]
        if self._one_cgroup_version:
            # A slave, not private: mounts that the host makes later (the simulated devices) must arrive.
            script = f'/usr/bin/umount {CGROUPS}/unified && exec "$@"'
            command = ["/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", script, "sh", *command]
        self._spawn("containerd", command)
        self._wait("containerd", self.containerd_address.exists)

    def _start_dockerd(self) -> None:
        command = [str(self.program("dockerd")), "--config-file", str(self.place.data / "daemon.json")]
        if self._one_cgroup_version:
            containerd = self._daemons["containerd"].pid
            command = ["/usr/bin/nsenter", f"--mount=/proc/{containerd}/ns/mnt", *command]
        self._spawn("dockerd", command)
        self._wait("dockerd", self._answers)

    def _spawn(self, name: str, command: list[str]) -> None:
        # setpriv: a run that is killed takes its daemons along.
        with (self.place.data / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["/usr/bin/setpriv", "--pdeathsig", "TERM", *command],
                env={"PATH": self._search_path(), "HOME": "/"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            ended = self._daemons[name].poll()
            if ended is not None or time.monotonic() > deadline:
                why = "does not answer" if ended is None else f"ended with {ended}"
                raise EngineError(f"{name} {why}. The end of its log:\n{self.log(name)}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(str(self.place.state / "d.sock"))
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        if daemon.poll() is None:
            daemon.terminate()
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
