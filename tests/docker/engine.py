"""A Docker engine of one's own: containerd and dockerd with their own sockets, state and data.

Nothing of the system's engine is used or seen, and nothing is left behind (place.py).
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.docker.place import CGROUPS, STOP_SECONDS, EngineError, Place

__all__ = ["Engine", "EngineError"]

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 30.0

# Whose subordinate ids a remapped engine uses, and the first of them. dockerd wants a user that the host has.
REMAP_USER = "daemon"
REMAPPED = 100000

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


class Engine:
    """A private containerd and dockerd; a context manager.

    runtimes: name -> program, as daemon.json registers them: a bare path and nothing else.
    default_runtime: which of them, or runc or crun, runs a container that names none.
    crun: the engine is set up so that crun can run, which needs one cgroup version (crun is then registered too).
    live_restore: containers outlive dockerd.
    remap: containers have user namespaces, in which root is the host's user REMAPPED.
    binaries: a folder with another engine than the system's (unpacked packages, or just the programs).
    search: a folder in which the daemons look for other programs first.
    settings: more of daemon.json.
    covered: folder -> another one of this host that the daemons, and what they start, see there instead of it.
    """

    def __init__(
        self,
        runtimes: Mapping[str, Path] | None = None,
        *,
        default_runtime: str = "runc",
        crun: bool = False,
        live_restore: bool = False,
        remap: bool = False,
        binaries: Path | None = None,
        search: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        covered: Mapping[Path, Path] | None = None,
    ) -> None:
        self.runtimes = dict(runtimes or {})
        if crun:
            self.runtimes["crun"] = Path("/usr/bin/crun")
        self.default_runtime = default_runtime
        self.live_restore = live_restore
        self.remap = remap
        self._own_mounts: list[str] = []  # commands for a mount namespace of the daemons' own
        if crun and (CGROUPS / "unified").is_dir():
            self._own_mounts.append(f"/usr/bin/umount {CGROUPS}/unified")
        if remap:
            self._own_mounts += [f'/usr/bin/mount --bind "$1/{name}" /etc/{name}' for name in ("subuid", "subgid")]
        for folder, by in (covered or {}).items():
            self._own_mounts.append(f"/usr/bin/mount --bind {shlex.quote(str(by))} {shlex.quote(str(folder))}")
        self._folders = [] if binaries is None else [binaries / "usr/sbin", binaries / "usr/bin", binaries]
        self._folders += [Path(folder) for folder in SYSTEM_PATH.split(":")]
        self._search = search
        self._settings = dict(settings or {})
        self.images: set[str] = set()  # those that it has been given (images.py)
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
            self.images.clear()
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

    def enter(self) -> list[str]:
        """What a command begins with that is to see the file systems as the daemons do."""
        return ["/usr/bin/nsenter", f"--mount=/proc/{self.pid('containerd')}/ns/mnt"] if self._own_mounts else []

    def remove_containers(self) -> None:
        """Remove every container of this engine, running or not."""
        daemon = self._daemons.get("dockerd")
        if daemon is None or daemon.poll() is not None:
            return
        status, listed = self._ask("GET", "/containers/json?all=1")
        if status != 200:
            raise EngineError(f"dockerd does not list its containers: {status} {listed!r}")
        ids = [container["Id"] for container in json.loads(listed)]
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            for status, said in threads.map(self._remove, ids):
                if status not in (204, 404):  # 404: it was on its way, by --rm
                    raise EngineError(f"a container can't be removed: {status} {said!r}")

    def _remove(self, container: str) -> tuple[int, bytes]:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            status, said = self._ask("DELETE", f"/containers/{container}?force=1&v=1")
            if status != 409 or time.monotonic() > deadline:  # Conflict: somebody removes it already
                return status, said
            time.sleep(0.05)

    def restart_dockerd(self, *, kill: bool = False) -> None:
        """End dockerd (with kill: by SIGKILL, as a crash would) and start it again; containerd stays."""
        if kill:
            self.kill_dockerd()
        self._end("dockerd")
        self._start_dockerd()

    def kill_dockerd(self) -> None:
        """End dockerd as a crash would; restart_dockerd() brings it back."""
        self._kill("dockerd")

    def crash_containerd(self) -> None:
        """End containerd as a crash would, and start it again; dockerd finds it by itself."""
        self._kill("containerd")
        self.containerd_address.unlink()
        self._start_containerd()

    def pid(self, daemon: str) -> int:
        """The process id of containerd or dockerd."""
        return self._daemons[daemon].pid

    def log(self, daemon: str = "dockerd", lines: int = 20) -> str:
        """The last lines that a daemon wrote."""
        path = self.place.data / f"{daemon}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _search_path(self) -> str:
        return ":".join(map(str, [self._search, *self._folders] if self._search else self._folders))

    def _configure(self) -> None:
        place = self.place
        (place.data / "containerd.toml").write_text(CONTAINERD_CONFIG.format(data=place.data, state=place.state))
        configuration: dict[str, object] = {
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
            "shutdown-timeout": 1,
            **self._settings,
        }
        if self.remap:
            configuration["userns-remap"] = REMAP_USER
            for name in ("subuid", "subgid"):
                (place.data / name).write_text(f"{REMAP_USER}:{REMAPPED}:65536\n")
                Path("/etc", name).touch()
        (place.data / "daemon.json").write_text(json.dumps(configuration, indent=4))

    def _start_containerd(self) -> None:
        command = [str(self.program("containerd")), "--config", str(self.place.data / "containerd.toml")]
        if self._own_mounts:
            # A slave, not private: mounts that the host makes later (the simulated devices) must arrive.
            script = " && ".join([*self._own_mounts, 'shift && exec "$@"'])
            unshare = ["/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", script, "sh"]
            command = [*unshare, str(self.place.data), *command]
        self._spawn("containerd", command)
        self._wait("containerd", self.containerd_address.exists)

    def _start_dockerd(self) -> None:
        command = [str(self.program("dockerd")), "--config-file", str(self.place.data / "daemon.json")]
        self._spawn("dockerd", [*self.enter(), *command])
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
        try:
            return self._ask("GET", "/_ping", timeout=5)[0] == 200
        except OSError:
            return False

    def _ask(self, method: str, path: str, timeout: float = 120) -> tuple[int, bytes]:
        """Status and body of dockerd's answer to one request, without the client, which takes longer to start."""
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(timeout)
            connection.sock.connect(str(self.place.state / "d.sock"))
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _kill(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

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
