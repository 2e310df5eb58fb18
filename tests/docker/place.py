"""Where an engine works: one of a few numbered places, which it locks while it lives and clears before it starts.

What a run that was killed left there is gone with the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# On a disk, for overlay2 can't lie on an overlay or a tmpfs; and short, for a socket's path ends at 107 bytes.
DATA = Path("/var/lib/runai-dev")
STATE = Path("/run/runai-dev")
PLACES = 32

CGROUPS = Path("/sys/fs/cgroup")
STOP_SECONDS = 15.0


class EngineError(Exception):
    """The engine did not start or stop; the message holds the ends of its logs."""


def run_client(
    name: str,
    command: list[str | Path],
    *,
    check: bool,
    seconds: float,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one command of a client called NAME to its end. With CHECK, a failure raises with what it printed."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if check and done.returncode != 0:
        raise EngineError(f"{name}: exit {done.returncode}: {' '.join(map(str, command))}: {done.stderr.strip()}")
    return done


class Place:
    """One of the numbered places: folders for data and state, a cgroup, and the lock that owns all of it."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock = lock
        self.data = DATA / str(number)
        self.state = STATE / str(number)
        # Cgroups are one tree for all that see a root file system of their own; the lock's inode tells those apart.
        self.cgroup = f"runai-dev-{number}-{os.fstat(lock).st_ino}"

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
        """The daemons, conmon and the shims: processes with our root of which an argument is a path of this place."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                program, *arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if not Path(program).name.startswith(("containerd", "dockerd", "conmon")):
                    continue
                if any(map(self._owns, arguments)) and (entry / "root").samefile("/"):
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
