"""The agent of a container: whether there can be one, what it is told, and its start.

The sockets are made here and handed over, so nobody waits for the agent: the runtime's first connection waits in the
socket's queue.
"""

from __future__ import annotations

import _socket  # without what socket adds, which takes 2 ms
import errno
import fcntl
import os

from runai_runtime.edits import child
from runai_runtime.errors import RefusalError, reason
from runai_runtime.grant import write
from runai_runtime.plan import need
from runai_runtime.seccomp import HoldAtDriver

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from collections.abc import Sequence
    from typing import Any

    from runai_runtime.edits import Edit
    from runai_runtime.grant import Share
    from runai_runtime.host import Host
    from runai_runtime.inventory import Inventory
    from runai_runtime.spec import Spec

LONGEST_SOCKET = 107  # bytes of a path (unix(7))
PAGE_BYTES = 65536
PAGE_MAGIC = b"RAIPage1"
BACKLOG = 64  # the container's own listener, and one for each docker exec that starts at once

# Bytes of NV_MEMORY_ALLOCATION_PARAMS by the driver's branch. Here stand the branches in which all that agent/abi.h
# knows (numbers, sizes, offsets) was compared with 580's, on which it was measured: by compiling against the headers of
# the first and the last release of each that NVIDIA/open-gpu-kernel-modules had in March 2026, up to 595.45.04 (nvos.h,
# nvstatus.h, nv_escape.h, class/cl*.h, ctrl0000gpu.h, ctrl2080gpu.h). Nothing else differed. 525 and 530 are out: their
# RM_ALLOC has 40 bytes, which the filter doesn't hold.
PARAMS = {535: 120, **dict.fromkeys((545, 550, 555, 560, 565, 570, 575, 580, 590, 595), 128)}

# Device memory can be asked for here as well, by ioctls that the agent doesn't know: DRM and modeset. The numbers are
# the kernel's (Documentation/admin-guide/devices.txt) and the driver's.
DRM, NVIDIA, NVIDIACTL, MODESET = 226, 195, 255, 254
DENIED: dict[str, dict[str, Any]] = {
    "/dev/dri": {"allow": False, "type": "c", "major": DRM, "access": "rwm"},
    "/dev/nvidia-modeset": {"allow": False, "type": "c", "major": NVIDIA, "minor": MODESET, "access": "rwm"},
}


def host_fault(inventory: Inventory, runtime: str) -> str:
    """Why no container of the low-level RUNTIME can have an agent, as a part of a sentence; "" where it can."""
    why = inventory.agent.get(runtime, f"{runtime} was not looked at, run runai-ctl configure again")
    if not why and not params_of(inventory.driver):
        why = f"the agent doesn't know the driver {inventory.driver}, it knows {min(PARAMS)} to {max(PARAMS)}"
    return why


def instance_fault(shares: list[Share]) -> str:
    """The same for a container with these SHARES. A client of the driver takes its instance by a call of its own
    (AMPERE_SMC_PARTITION_REF), and from then on the same calls mean that instance's memory: nobody has compared what
    the agent reads of them then.
    """
    parts = [share.gpu.index for share in shares if share.gpu.parent is not None]
    return f"the agent knows whole GPUs alone, and {parts[0]} is an instance of one (MIG)" if parts else ""


def socket_fault(folder: str) -> str:
    """The same for a container whose grant is going to lie in FOLDER: the runtime has to connect there."""
    path = os.path.join(folder, "agent")
    length = len(os.fsencode(path))
    if length <= LONGEST_SOCKET:
        return ""
    return (
        f"the path {path} has {length} bytes, and that of a socket ends at {LONGEST_SOCKET} (choose a shorter "
        '"state" in the configuration, or a shorter id)'
    )


def refusal_of(host: Host, why: str) -> RefusalError:
    return RefusalError(
        f'the share can\'t be kept by the agent, which {host.path} asks for: {why}; or set "enforcement" to "auto" '
        "there, and libvgpu alone keeps it"
    )


class Agent:
    """The agent of a container of the low-level RUNTIME whose grant is going to lie in FOLDER, on a host without a
    fault.
    """

    def __init__(self, host: Host, inventory: Inventory, runtime: str, shares: list[Share], folder: str) -> None:
        self.program = need(host.agent)
        self.folder = folder
        names = [f"nvidia{share.gpu.minor}" for share in shares]
        self.nodes = [os.path.join(host.devices, name) for name in ("nvidiactl", *names)]
        self.uvm = os.path.join(host.devices, "nvidia-uvm")
        self.params = params_of(inventory.driver)
        self.shares = shares
        self.hold = HoldAtDriver(os.path.join(folder, "agent"), inventory.flags.get(runtime, ()))
        self.doors = CloseOtherDoors([share.gpu.minor for share in shares], host.devices_let_in)
        self.sockets: list[_socket.socket] = []

    def edits(self) -> list[Edit]:
        """The first of them may be refused, and has changed nothing then."""
        return [self.hold, self.doors]

    def description(self) -> dict[str, Any]:
        """For the grant, once the edits are applied."""
        let_in = {"let_in": self.doors.let_in} if self.doors.let_in else {}
        return {"by": "agent", "removed": self.doors.removed, **let_in}

    def put(self, folder: str, owner: tuple[int, int] | None) -> None:
        """All that the agent needs, into the unfinished FOLDER. OWNER is the container's root on the host: its runtime
        may connect as that user.
        """
        write(folder, "agent.conf", self.text())
        page = os.open(os.path.join(folder, "page"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        os.fchmod(page, 0o444)
        os.write(page, self.page())
        os.close(page)
        for name in ("agent", "control"):
            self.sockets.append(listen(os.path.join(folder, name)))
        if owner:
            os.chown(os.path.join(folder, "agent"), *owner)

    def page(self) -> bytes:
        """The page as it is before the agent is up: nothing used (libvgpu/agent_page.h)."""
        figures = b"".join(share.limit.to_bytes(8, "little") + bytes(8) for share in self.shares)
        return (PAGE_MAGIC + bytes(8) + figures).ljust(PAGE_BYTES, b"\0")

    def text(self) -> str:
        lines: list[tuple[str, ...]] = [("runai-agent", "1"), ("creator", str(os.getpid()))]
        lines += [("params", str(self.params))]
        lines += [("gpu", share.gpu.uuid, str(share.limit), str(share.gpu.reserved)) for share in self.shares]
        lines += [*(("node", path) for path in self.nodes), ("uvm", self.uvm)]
        return "".join("\t".join(fields) + "\n" for fields in lines)

    def start(self) -> None:
        """Start it. It is nobody's child that waits for its children, outlives this process and what this becomes, and
        ends by itself with the last of the container and of this process. Raises RefusalError.
        """
        # Out of the way of the numbers that they get there.
        high = [fcntl.fcntl(socket.fileno(), fcntl.F_DUPFD_CLOEXEC, 10) for socket in self.sockets]
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(high, 3)]
        words = ["runai-agent", self.folder, "detached"]
        try:
            pid = os.posix_spawn(self.program, words, {}, file_actions=actions, setsid=True, setsigmask=())
            status = os.waitpid(pid, 0)[1]  # it goes on in a child
            why = f"it ended with {os.waitstatus_to_exitcode(status)}" if status else ""
        except OSError as error:
            why = reason(error)
        finally:
            for descriptor in high:
                os.close(descriptor)
            for socket in self.sockets:
                socket.close()
        if why:
            raise RefusalError(f"the agent {self.program} can't be started: {why}; install runai-runtime again")


def params_of(driver: str) -> int:
    """Bytes of NV_MEMORY_ALLOCATION_PARAMS in this version of the driver; 0: not known."""
    branch = driver.partition(".")[0]
    return PARAMS.get(int(branch), 0) if branch.isascii() and branch.isdigit() and len(branch) < 6 else 0


def listen(path: str) -> _socket.socket:
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    socket.bind(path)
    os.chmod(path, 0o600)  # before listen(): until then nobody can connect
    socket.listen(BACKLOG)
    return socket


class CloseOtherDoors:
    """Takes the devices out by which device memory can be had without the agent: what isn't of the GPUs with the minor
    numbers MINORS. LET_IN: of the paths in DENIED, those that stay, and aren't bounded then.
    """

    def __init__(self, minors: list[int], let_in: Sequence[str] = ()) -> None:
        self.let_in = list(let_in)
        self.closed = {door: rule for door, rule in DENIED.items() if door not in let_in}
        self.kept = {NVIDIACTL, *minors, *([MODESET] if "/dev/nvidia-modeset" in let_in else [])}
        self.removed: list[str] = []  # for whoever reads the grant

    def apply(self, spec: Spec) -> None:
        linux = child(spec, "linux")
        resources = child(linux, "resources")
        for parent, key in ((linux, "devices"), (spec, "mounts"), (resources, "devices")):
            if isinstance(parent.get(key), list):
                self.removed += [describe(entry) for entry in parent[key] if self.is_door(entry)]
                parent[key] = [entry for entry in parent[key] if not self.is_door(entry)]
        # The last rule counts, and a rule that was there may allow everything.
        closed = self.closed.values()
        rules = [rule for rule in resources.get("devices") or [] if rule not in closed]
        resources["devices"] = [*rules, *(dict(rule) for rule in closed)]

    def is_door(self, entry: object) -> bool:
        """Whether a device, a mount or a cgroup's leave is for such a device, by its paths or its number."""
        if not isinstance(entry, dict) or entry.get("allow") is False:
            return False
        paths = [entry[key] for key in ("path", "destination", "source") if isinstance(entry.get(key), str)]
        real = [os.path.realpath(path) for path in paths if "\0" not in path]
        if any(path == door or path.startswith(f"{door}/") for path in real for door in self.closed):
            return True
        if entry.get("type") not in ("c", "u"):
            return False
        if entry.get("major") == DRM:
            return "/dev/dri" in self.closed
        return entry.get("major") == NVIDIA and entry.get("minor") not in self.kept


def describe(entry: dict[str, Any]) -> str:
    """A device, a mount or a rule in a word."""
    minor = entry.get("minor")
    number = f"{entry.get('type')} {entry.get('major')}:{'*' if minor in (None, -1) else minor}"
    return str(entry.get("path") or entry.get("destination") or number)
