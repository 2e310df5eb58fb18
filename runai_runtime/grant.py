"""What a container gets: which GPUs, and how many bytes on each. Kept in STATE/ID while the container lives."""

from __future__ import annotations

import errno
import json
import os

from runai_runtime.ended import has_ended, is_running
from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.files import read_small
from runai_runtime.host import Host
from runai_runtime.inventory import Gpu, Inventory
from runai_runtime.request import GPUS, GRANULE, Amount, Request

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from collections.abc import Iterable
    from typing import Any

    from runai_runtime.agent import Agent

# Of what a ledger has to understand of a grant: what is promised (gpus), and how to tell whether its container is
# there (id, root, creator). A key that older grants lack, and that can be done without, doesn't change it.
VERSION = 1

MIB = 1 << 20

BOOT_ID = "/proc/sys/kernel/random/boot_id"
# What runc and crun write of a container once it is made, below their root. One that was killed in the middle leaves a
# folder without it.
STATES = ("state.json", "status")

DECODER = json.JSONDecoder()

ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Share:
    """One GPU of a grant; sizes in bytes.

    guarantee: what it is sure to get. limit: the most that it may take, which is what it is shown. room: what that
    limit takes of what the GPU can promise.
    """

    __slots__ = ("gpu", "guarantee", "limit", "room")

    def __init__(self, gpu: Gpu, guarantee: int, limit: int, room: int | None = None) -> None:
        self.gpu, self.guarantee, self.limit = gpu, guarantee, limit
        self.room = limit if room is None else room


def shares_of(request: Request, gpus: list[Gpu]) -> list[Share]:
    """REQUEST on each of GPUS. Raises RefusalError for what a GPU doesn't have."""
    return [share_of(request, gpu) for gpu in gpus]


def share_of(request: Request, gpu: Gpu) -> Share:
    limit = size(request.limit, gpu)
    if size(request.guarantee, gpu) > limit:
        raise RefusalError(
            f"{request.guarantee.name} is {quoted(request.guarantee.text)}, more than {request.limit.name}, "
            f"{quoted(request.limit.text)}; a container can't be sure of more than it may take",
        )
    return Share(gpu, promised(request.guarantee, gpu), limit, promised(request.limit, gpu))


def promised(amount: Amount, gpu: Gpu) -> int:
    """What AMOUNT takes of GPU's memory without the driver's own part: nobody gets that, whatever is shown. A part
    is a part of the rest, so that two halves fit on one GPU.
    """
    rest = gpu.total - gpu.reserved
    return min(amount.of(rest) & ~(MIB - 1) if amount.is_part else size(amount, gpu), rest)


def size(amount: Amount, gpu: Gpu) -> int:
    """AMOUNT in bytes on GPU: whole MiB, since nvidia-smi would show the next one for a half."""
    wanted = amount.of(gpu.total)
    if wanted < GRANULE:
        is_perhaps_percent = amount.text in map(str, range(1, 101))
        perhaps = f", or for {amount.text}% if that was meant" if is_perhaps_percent else ""
        raise RefusalError(
            f"{amount.name} is {quoted(amount.text)}, {wanted} bytes of GPU {gpu.index}; a GPU gives memory in blocks "
            f"of 2 MiB, so ask for 2m or more{perhaps}",
        )
    if wanted > gpu.total:
        raise RefusalError(
            f"{amount.name} is {quoted(amount.text)}, {mib(wanted)} MiB; GPU {gpu.index} has {mib(gpu.total)} MiB; "
            "ask for less",
        )
    return wanted & ~(MIB - 1)


def mib(size: int) -> int:
    return size // MIB


def by_minor(inventory: Inventory, minors: list[int], caps: set[int]) -> list[Gpu]:
    """The GPUs that a spec grants by their device nodes; the instances (MIG) by CAPS, their capability nodes, too."""
    nodes = [gpu for gpu in inventory.gpus if gpu.minor in minors]
    gpus = [gpu for gpu in nodes if gpu.parent is None or (gpu.capabilities and caps.issuperset(gpu.capabilities))]
    for whole in inventory.divided:
        if whole.minor in minors and all(gpu.minor != whole.minor for gpu in gpus):
            raise RefusalError(
                f"the container is given /dev/nvidia{whole.minor}, a GPU in MIG mode, and not both capability nodes of "
                f"an instance of it; give it these as well (/dev/nvidia-caps), or set {GPUS} instead, for one to "
                f"{example(inventory, whole)}",
            )
    unknown = sorted(set(minors) - {gpu.minor for gpu in gpus})
    if unknown:
        raise RefusalError(
            f"the container is given /dev/nvidia{unknown[0]}, which is no GPU that this host's driver knows; see "
            "nvidia-smi for those it has",
        )
    return gpus


def example(inventory: Inventory, whole: Gpu) -> str:
    """An instance of the GPU that is WHOLE."""
    return next((str(gpu.index) for gpu in inventory.gpus if gpu.parent == whole.index), f"{whole.index}:0")


def count_of(inventory: Inventory, wish: str | None) -> int:
    """How many GPUs WISH, a value of RUNAI_GPUS, asks for without naming them; 0 where it does name them."""
    if wish is None:
        return 1
    if not (wish.isascii() and wish.isdigit()):
        return 0
    count = int(wish[:9])
    if not 1 <= count <= len(inventory.gpus) or len(wish) > 9:
        there = len(inventory.gpus)
        most = f"at most {there}" if count else f"1 or more, {there} at most"
        raise RefusalError(f"{GPUS} is {quoted(wish)}; this host has {there} GPU(s); ask for {most}")
    return count


def by_wish(inventory: Inventory, wish: str, name: str = GPUS) -> list[Gpu]:
    """The GPUs that WISH names: `all`, indices or UUIDs with commas (`device=` may stand before them), those of
    instances (MIG) included.
    """
    if wish == "all":
        return inventory.gpus
    wanted = wish.removeprefix("device=").split(",")
    gpus = [one(inventory, word, wish, name) for word in wanted if word]
    if not gpus:
        raise RefusalError(f"{name} is {quoted(wish)}, which names no GPU; write a count, indices such as 0,1, or all")
    return list(dict.fromkeys(gpus))


def one(inventory: Inventory, word: str, wish: str, name: str) -> Gpu:
    for gpu in inventory.gpus:
        if word in (str(gpu.index), gpu.uuid):
            return gpu
    for gpu in inventory.divided:
        if word in (str(gpu.index), gpu.uuid):
            raise RefusalError(
                f"{name} is {quoted(wish)}, and GPU {gpu.index} is in MIG mode, so only its instances can be used; "
                f"name one, such as {example(inventory, gpu)}",
            )
    raise RefusalError(
        f"{name} is {quoted(wish)}, and this host has no GPU {quoted(word)}; nvidia-smi -L lists those it has",
    )


def directory(host: Host, container: str) -> str:
    """STATE/ID. Raises RefusalError for an id that is no plain name."""
    if not container or not ID_CHARACTERS.issuperset(container) or container in (".", "..") or len(container) > 255:
        raise RefusalError(f"{quoted(container)} is no container id: use letters, digits and _+-. only")
    return os.path.join(host.state, container)


def start_time(pid: int) -> int:
    """When process PID started, in clock ticks since boot (proc(5), stat, field 22). 0: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


_boots: dict[str, str] = {}  # by file: a look at hundreds of grants asks once


def boot() -> str:
    """Which boot this is (proc_sys_kernel(5), random/boot_id); "" if that can't be told."""
    if BOOT_ID not in _boots:
        try:
            with open(BOOT_ID, encoding="ascii") as file:
                _boots[BOOT_ID] = file.read().strip()
        except (OSError, ValueError):
            _boots[BOOT_ID] = ""
    return _boots[BOOT_ID]


def write_grant(
    host: Host,
    container: str,
    root: str,
    shares: list[Share],
    plan: str,
    libcuda: dict[str, str],
    log: str = "",
    owner: tuple[int, int] | None = None,
    enforcement: dict[str, Any] | None = None,
    agent: Agent | None = None,
    injected: str = "",
    made: Iterable[str] = (),
    request: dict[str, str] | None = None,
) -> str:
    """Make STATE/ID with all that the hooks need; its path. It appears with everything in it, or not at all. Who calls
    holds the ledger's lock, under which SHARES were found to fit.

    LIBCUDA says which one is behind ours: for whoever reads the grant.

    LOG is the runtime's log file, absolute, if it has one; OWNER the host's user and group that are root in the
    container's user namespace: the createContainer hook, which runs there, has to write one file.

    ENFORCEMENT says what keeps the share; AGENT, if that does, puts its files in. INJECTED says what put the GPUs in,
    "cdi" or "driver"; "" where the container came with them. MADE: paths in its root that the low-level runtime is
    going to make for mounts of ours, to be removed at its end. REQUEST is what was asked for, as it was written.

    Raises RefusalError when the id is in use or STATE can't be written.
    """
    path = directory(host, container)
    unfinished = os.path.join(host.state, f".{os.getpid()}")
    grant = {
        "version": VERSION,
        "id": container,
        "root": root,
        "creator": {"pid": os.getpid(), "start": start_time(os.getpid()), "boot": boot()},
        "gpus": [describe(share) for share in shares],
        "overcommit": host.overcommit,
        "libcuda": libcuda,
        "enforcement": enforcement or {},
    }
    grant |= ({"injected": injected} if injected else {}) | ({"request": request} if request else {})
    try:
        os.makedirs(host.state, mode=0o711, exist_ok=True)
        remove_grant(unfinished)
        os.mkdir(unfinished, 0o711)
        os.chmod(unfinished, 0o711)  # noqa: S103 - files in it are mounted into the container; mkdir has the umask
        write(unfinished, "limits", "".join(f"{s.gpu.uuid} {s.limit} {s.gpu.context}\n" for s in shares))
        write(unfinished, "plan", plan)
        if log:
            write(unfinished, "log", log)
        lines = "".join(f"{line}\n" for line in made if "\n" not in line)
        if owner or lines:
            write(unfinished, "made", lines)
            os.chmod(os.path.join(unfinished, "made"), 0o600)
        if owner:
            os.chown(os.path.join(unfinished, "made"), *owner)
        if agent:
            agent.put(unfinished, owner)
        write(unfinished, "grant.json", json.dumps(grant, indent=1) + "\n")
        os.rename(unfinished, path)
    except BaseException as error:
        remove_grant(unfinished)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise RefusalError(
                f"a container called {container} has a share of a GPU already; remove it first, or take another name",
            ) from error
        raise RefusalError(
            f"the state folder {host.state} can't be written: {reason(error)}; see the file system that it lies on",
        ) from error
    return path


def describe(share: Share) -> dict[str, Any]:
    sizes = {"guarantee": share.guarantee, "limit": share.limit, "room": share.room}
    return {"index": share.gpu.index, "uuid": share.gpu.uuid, **sizes}


def write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), 0o444)
        file.write(text)


KEPT = frozenset({"host.json", "libvgpu", "lock"})  # what else lies in STATE
FILES = (
    *("grant.json", "plan", "limits", "pid", "cgroup", "log", "made"),
    *("agent.conf", "agent", "control", "page", "agent.log"),
)


def remove_grant(path: str) -> None:
    """Take STATE/ID away."""
    for name in FILES:
        try:
            os.unlink(os.path.join(path, name))
        except OSError:  # noqa: PERF203 - what isn't there needs no removal
            continue
    try:
        os.rmdir(path)
    except OSError:
        return


def take_back(host: Host, path: str) -> None:
    """Do for a container that is gone what the runtime left out: the poststop hook, which removes the mount points
    that were made in its image as well.
    """
    null = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in (0, 1, 2)]
    try:
        hook = os.posix_spawn(host.hook, ["runai-hook", "poststop", path], {}, file_actions=null)
        os.waitpid(hook, 0)
    except OSError:
        pass
    remove_grant(path)


def default_root(runtime: str) -> str:
    """Where RUNTIME, started as root without --root, keeps its containers. crun asks the environment, as the user's
    session sets it; runc does so for other users alone.
    """
    if os.path.basename(runtime) == "crun":
        return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/run", "crun")
    return "/run/runc"


def is_made(grant: dict[str, Any]) -> bool:
    """Whether the low-level runtime has made the container."""
    return any(os.path.exists(f"{grant['root']}/{grant['id']}/{name}") for name in STATES)


class Roots:
    """The low-level runtimes' roots, each listed once: for a look at hundreds of containers."""

    def __init__(self) -> None:
        self.listed: dict[str, frozenset[str]] = {}

    def hold(self, grant: dict[str, Any]) -> bool:
        """Whether the container of GRANT had a folder in its root at the first look there."""
        root: str = grant["root"]
        if root not in self.listed:
            try:
                self.listed[root] = frozenset(os.listdir(root))
            except OSError:
                self.listed[root] = frozenset()
        return grant["id"] in self.listed[root]


def living(path: str, roots: Roots | None = None) -> dict[str, Any] | None:
    """The grant in PATH, if its container is being made (its creator lives; exec keeps pid and start time), or the
    runtime knows it and it has not ended. None else, or where there is no whole grant.

    ROOTS makes it cheap for most of many: a folder in its root, and a first process that is there, are enough.

    Neither outlives a boot, although both can seem to, where the folders lie on a disk; a grant without "boot" is of a
    version that wrote none. One of a newer version is answered as it is, until the next boot: this one can't tell.
    """
    try:
        grant: dict[str, Any] = DECODER.decode(read_small(f"{path}/grant.json"))
        creator = grant["creator"]
        made, now = creator.get("boot"), boot()
        if made and now and made != now:
            return None
        if not is_known(grant):
            return grant
        if roots and roots.hold(grant) and is_running(path):
            return grant
        if is_made(grant):
            return None if has_ended(path) else grant
        start = start_time(creator["pid"])
        if start != 0 and start == creator["start"]:
            return grant
        return grant if is_made(grant) else None  # the creator may have made it just now, and ended
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_known(grant: dict[str, Any]) -> bool:
    """Whether GRANT is of a version that this one understands."""
    return bool(grant.get("version", VERSION) == VERSION)


def is_alive(path: str) -> bool:
    """Whether the container whose grant lies in PATH is there, or is being made."""
    return living(path) is not None
