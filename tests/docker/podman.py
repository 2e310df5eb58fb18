"""podman of this machine's own distribution, with storage and state of its own: there is no daemon to start.

Nothing of the person's own podman is used or seen, and nothing is left behind (place.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.docker import images
from tests.docker.engine import SYSTEM_PATH
from tests.docker.place import CGROUPS, EngineError, Place, run_client

PODMAN = "/usr/bin/podman"
IMAGE = "runai-test:podman"
SECONDS = 60

# For a container without limits podman asks for more open files and processes than root may have where it lacks
# CAP_SYS_RESOURCE, and networks need programs that the tests have no use for.
OPTIONS = ("--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Podman:
    """A private podman, a context manager; PROGRAM is its OCI runtime.

    crun: commands run where crun can, which needs one cgroup version.
    """

    def __init__(self, program: Path, *, crun: bool = False) -> None:
        self.program = program
        self._place: Place | None = None
        self._holder: subprocess.Popen[str] | None = None
        self._own_mounts = crun and (CGROUPS / "unified").is_dir()

    @property
    def place(self) -> Place:
        if self._place is None:
            raise EngineError("podman's place is not taken")
        return self._place

    def __enter__(self) -> Podman:
        self._place = Place.take()
        try:
            if self._own_mounts:
                self._hold_mounts()
            self("import", images.archive(images.BUSYBOX), IMAGE)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the containers and leave nothing behind."""
        try:
            self.remove_containers()
        finally:
            if self._holder:
                self._holder.kill()
                self._holder.communicate()
            place, self._place = self.place, None
            place.clear()
            place.release()

    def __call__(self, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one podman command to its end. With check, a failure raises with what the command printed."""
        command = [*self._enter(), PODMAN, *self._globals(), *args]
        environment = {"PATH": SYSTEM_PATH, "HOME": str(self.place.state), "CONTAINERS_CONF": "/dev/null"}
        return run_client("podman", command, check=check, seconds=SECONDS, environment=environment)

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`podman run` with ARGS, of which the image is one."""
        return self("run", *OPTIONS, f"--cgroup-parent=/{self.place.cgroup}", *args, check=check)

    def remove_containers(self) -> None:
        self("rm", "--all", "--force", "--time=0", "--volumes")

    def _globals(self) -> list[str]:
        place = self.place
        folders = [f"--root={place.data}/p", f"--runroot={place.state}/p", f"--tmpdir={place.state}/t"]
        kinds = ["--cgroup-manager=cgroupfs", "--storage-driver=overlay", "--events-backend=file"]
        return [*folders, *kinds, f"--runtime={self.program}"]

    def _hold_mounts(self) -> None:
        """All commands need the same mount namespace, since each sees the containers' roots that another mounted."""
        script = f"/usr/bin/umount {CGROUPS}/unified && echo && exec /usr/bin/sleep infinity"
        unshare = ["/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", script]
        command = ["/usr/bin/setpriv", "--pdeathsig", "KILL", *unshare]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout
        self._holder.stdout.readline()

    def _enter(self) -> list[str]:
        return ["/usr/bin/nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"] if self._holder else []
