"""Who holds what of the host's GPUs, read from the grants, and the lock under which one more is let in.

There is no file with the sums: the grants (STATE/ID/grant.json) are the ledger, so nothing can be out of step with
them. One that belongs to a container which is gone counts no more from the next look on.
"""

from __future__ import annotations

import fcntl
import os
import time

from runai_runtime import grant as grants
from runai_runtime.errors import RefusalError, reason
from runai_runtime.host import NO_SHARE
from runai_runtime.placement import NoRoomError, place
from runai_runtime.request import Amount

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from typing import Any

    from runai_runtime.grant import Share
    from runai_runtime.host import Host
    from runai_runtime.inventory import Gpu
    from runai_runtime.placement import Choice
    from runai_runtime.request import Request

LOCK = "lock"
LOCK_SECONDS = 30.0  # it is held for milliseconds: then whoever has it is stopped, or hangs in a file system
LONGEST_HOLDER = 64  # bytes of what a holder writes
STAT_SECONDS = 0.1  # how often who waits for room sees whether STATE has changed
LOOK_SECONDS = 2.0  # how often at the latest it looks: no change of STATE tells that a container has crashed


class Lock:
    """The lock of STATE: one process at a time admits, changes or sweeps. A context manager.

    It ends with the process that holds it (flock(2)), and no other program gets it: it is closed on exec. Who has it
    writes its pid and the time into the file, so that who waits can tell a queue that moves from a holder that doesn't.
    """

    def __init__(self, host: Host) -> None:
        self.path = os.path.join(host.state, LOCK)
        self.file = -1

    def __enter__(self) -> None:
        pause, holder, until = 0.001, b"", time.monotonic() + LOCK_SECONDS
        while not self._try():
            last, holder = holder, self._holder()
            if holder != last:
                until = time.monotonic() + LOCK_SECONDS
            elif time.monotonic() >= until:
                self.close()
                pid = holder.split()[0].decode() if holder.split() else "unknown"
                raise RefusalError(
                    f"another process (pid {pid}) has had the lock {self.path} for {LOCK_SECONDS:.0f} seconds; see "
                    "whether it is stopped",
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        try:
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, f"{os.getpid()} {time.monotonic_ns()}\n".encode(), 0)
        except OSError:
            pass  # on a full disk it is a lock all the same

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _holder(self) -> bytes:
        return os.pread(self.file, LONGEST_HOLDER, 0) if self.file >= 0 else b""

    def _try(self) -> bool:
        """Whether the lock is ours now. Keeps the file open else, unless it is no more the one of that name."""
        try:
            if self.file < 0:
                self._open()
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self.file), os.lstat(self.path)):  # else somebody has removed that file
                return True
            self.close()
        except BlockingIOError:
            pass
        except FileNotFoundError:
            self.close()
        except BaseException:
            self.close()
            raise
        return False

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o711, exist_ok=True)
            self.file = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise RefusalError(
                f"the lock {self.path} can't be opened: {reason(error)}; see the file system that it lies on",
            ) from error


class Ledger:
    """What is promised of each GPU, in bytes, and to whom.

    A GPU can promise its total less what the driver keeps and what the configuration reserves. A grant takes its
    limit of that, or where the configuration lets limits add up beyond ("overcommit") what it is sure to get.
    """

    __slots__ = ("holders", "overcommit", "reserve")

    def __init__(self, host: Host) -> None:
        self.overcommit = host.overcommit
        self.reserve = Amount("reserve", host.reserve) if host.reserve != NO_SHARE else None
        self.holders: dict[str, dict[str, int]] = {}  # by UUID, then by container

    def add(self, container: str, gpus: Any) -> None:
        """GPUS are those of a grant.json. Raises KeyError, TypeError or AttributeError where they are none."""
        for gpu in gpus:
            took = gpu["guarantee"] if self.overcommit else gpu.get("room", gpu["limit"])
            holders = self.holders.setdefault(gpu["uuid"], {})
            holders[container] = holders.get(container, 0) + took

    def capacity(self, gpu: Gpu) -> int:
        reserve = self.reserve.of(gpu.total) if self.reserve else 0
        return max(0, gpu.total - gpu.reserved - reserve)

    def free(self, gpu: Gpu) -> int:
        """Never below 0: a configuration that promised more may have been in force."""
        return max(0, self.capacity(gpu) - sum(self.held(gpu).values()))

    def held(self, gpu: Gpu) -> dict[str, int]:
        if not gpu.same_memory:
            return self.holders.get(gpu.uuid, {})
        together: dict[str, int] = {}
        for uuid in (gpu.uuid, *gpu.same_memory):
            for container, size in self.holders.get(uuid, {}).items():
                together[container] = together.get(container, 0) + size
        return together

    def takes(self, share: Share) -> int:
        """What SHARE would take of its GPU."""
        return share.guarantee if self.overcommit else share.room


def read_ledger(host: Host, apart_from: str = "") -> Ledger:
    """All grants of containers that are there, without that of APART_FROM; the others are taken back.

    For who holds the lock. A runtime that fails early, or can't remove a cgroup, never calls the poststop hook.
    """
    ledger, roots = Ledger(host), grants.Roots()
    for name in os.listdir(host.state):
        path = f"{host.state}/{name}"
        if name in grants.KEPT:
            continue
        if name.startswith("."):
            sweep_unfinished(path, name)
            continue
        grant = grants.living(path, roots)
        if grant is None:
            if os.path.isdir(path):
                grants.take_back(host, path)
        elif name != apart_from:
            count_in(ledger, path, name, grant)
    return ledger


def count_in(ledger: Ledger, path: str, container: str, grant: dict[str, Any]) -> None:
    try:
        ledger.add(container, grant["gpus"] if grants.is_known(grant) else None)
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusalError(
            f"{path}/grant.json is damaged, or of a version of runai-runtime that this one doesn't know, so nobody can "
            "tell what is free; remove that container, and that folder where the container is gone",
        ) from error


def sweep_unfinished(path: str, name: str) -> None:
    """Take away what a process that was killed has begun."""
    if os.path.isdir(path) and not grants.start_time(int(name[1:]) if name[1:].isdigit() else 0):
        grants.remove_grant(path)


class Admission:
    """The shares of CONTAINER on the GPUs that are chosen for it. A context manager, inside of which the lock is held,
    so that the grant can be made.

    Raises NoRoomError where there is no room, once the time that the configuration says ("wait") is over.
    """

    def __init__(self, host: Host, container: str, request: Request, choice: Choice) -> None:
        self.host, self.container, self.request, self.choice = host, container, request, choice
        self.lock = Lock(host)

    def __enter__(self) -> list[Share]:
        until = time.monotonic() + self.host.wait
        while True:
            try:
                seen = changed(self.host.state)
                return self._try()
            except NoRoomError as refusal:
                if not refusal.may_come or time.monotonic() >= until:
                    raise
            wait_for_change(self.host.state, seen, until)

    def __exit__(self, *_: object) -> None:
        self.lock.__exit__()

    def _try(self) -> list[Share]:
        self.lock.__enter__()
        try:
            ledger = read_ledger(self.host, self.container)
            return place(self.request, self.choice, ledger, self.host.placement)
        except BaseException:
            self.lock.__exit__()
            raise


def changed(folder: str) -> int:
    """When something was made or removed in FOLDER."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def wait_for_change(folder: str, seen: int, until: float) -> None:
    """Sleep until something has come or gone in FOLDER since SEEN; until it is time for a look, or UNTIL."""
    look = min(until, time.monotonic() + LOOK_SECONDS)
    while (left := look - time.monotonic()) > 0 and changed(folder) == seen:
        time.sleep(min(STAT_SECONDS, left))
