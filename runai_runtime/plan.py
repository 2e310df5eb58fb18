"""What has to be in a container with a share: the edits of its spec, and the plan for the hook (docs/architecture.md).

What lies at our paths in the container is decided by the hook, in the container's mount namespace; the plan only says
which of the host's files go where.
"""

from __future__ import annotations

import itertools
import os
import stat

from runai_runtime.edits import AddDevice, AddHook
from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.host import Host
from runai_runtime.inventory import File, Gpu, Inventory
from runai_runtime.mig import node_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runai_runtime.compat import ImageDriver
    from runai_runtime.edits import Edit

STAGES = ("prestart", "createContainer", "poststop")

# Our libraries: the name under which programs load them, and where the names of their files begin.
OURS = {"libcuda.so.1": "libcuda.so", "libnvidia-ml.so.1": "libnvidia-ml.so"}

CONTROL_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")

DEFAULT_CAPABILITIES = "compute,utility"


class Plan:
    """The edits of the spec, and the lines for the hook."""

    __slots__ = ("edits", "lines")

    def __init__(self) -> None:
        self.edits: list[Edit] = []
        self.lines: list[tuple[str, ...]] = [("runai-plan", "1")]

    def line(self, *fields: str) -> None:
        for field in fields:
            if "\t" in field or "\n" in field:
                raise RefusalError(f"the path {quoted(field)} has a tab or a line break in it; give it another name")
            if any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in field):
                raise RefusalError(f"the path {quoted(field)} is no text; give it another name")
        self.lines.append(fields)

    def sources(self, *kinds: str) -> list[str]:
        """The host's files in the lines of these KINDS."""
        return [fields[2] for fields in self.lines if fields[0] in kinds]

    def text(self) -> str:
        return "".join("\t".join(fields) + "\n" for fields in self.lines)


def make_plan(
    host: Host,
    inventory: Inventory,
    gpus: list[Gpu],
    grant: str,
    rootfs: str,
    environment: dict[str, str],
    search: Iterable[str] = (),
    preload: Iterable[str] = (),
    image: ImageDriver | None = None,
) -> Plan:
    """The plan for a container with GPUS, whose grant lies in the folder GRANT.

    SEARCH: folders of the container, beyond those of every loader, that may have libraries of the driver. PRELOAD:
    files there that its loader takes before all others. IMAGE: the libcuda that the image brings along, if that is to
    be used.
    """
    plan = Plan()
    plan.line("rootfs", rootfs)
    add_libraries(plan, inventory, wanted_capabilities(environment), image)
    add_programs(plan, inventory, wanted_capabilities(environment))
    add_nodes(plan, host, gpus)
    for folder in dict.fromkeys(search):
        plan.line("search", folder)
    for library in preload:
        plan.line("preload", library)
    need(host.hook)
    plan.edits += [AddHook(stage, host.hook, grant) for stage in STAGES]
    return plan


# What glibc's loader puts for $LIB, by distribution, and for $PLATFORM, by processor (ld.so(8)).
LIB = ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib"]
PLATFORM = [os.uname().machine, "haswell", "xeon_phi"]

MOST_PATHS = 450  # of one variable: the hook takes 1024 lines in all


def search_folders(environment: dict[str, str], cwd: str, program: str = "") -> list[str]:
    """The folders of the container that its LD_LIBRARY_PATH names. Raises RefusalError where the hook can't be told."""
    value = environment.get("LD_LIBRARY_PATH", "")
    # A semicolon separates for glibc alone.
    words = value.replace(";", ":").split(":") + value.split(":") if value else []
    return expanded("LD_LIBRARY_PATH", words, environment, cwd, program)


def preloaded(environment: dict[str, str], cwd: str, program: str = "") -> list[str]:
    """The files that its LD_PRELOAD names; a bare name is looked for where every library is. Raises likewise."""
    value = environment.get("LD_PRELOAD", "").replace(":", " ")
    # Other white space separates for musl alone.
    words = [word for word in value.split(" ") + value.split() if "/" in word]
    return expanded("LD_PRELOAD", words, environment, cwd, program)


def expanded(name: str, words: list[str], environment: dict[str, str], cwd: str, program: str) -> list[str]:
    """The loader's WORDS, of the variable NAME, as absolute paths: one that is relative, or empty, counts from the
    working directory.

    $ORIGIN is known for the container's first program alone. For musl, and where no name of glibc's follows, a $ is a
    letter like others.
    """
    values = {"LIB": LIB, "PLATFORM": PLATFORM, "ORIGIN": origins(environment, cwd, program)}
    meanings = (meaning for word in dict.fromkeys(words) for meaning in (word, *replaced(word, values)))
    found = list(itertools.islice(meanings, MOST_PATHS + 1))
    if len(found) > MOST_PATHS:
        raise RefusalError(
            f"{name} can mean more than {MOST_PATHS} paths in the container; name fewer in it, or in PATH"
        )
    if any("\t" in path or "\n" in path for path in found):
        raise RefusalError(
            f"{name} has a tab or a line break in it, so the container's loader can't be followed; set it without"
        )
    return list(dict.fromkeys(os.path.join("/", cwd, path) for path in found))


def replaced(word: str, values: dict[str, list[str]]) -> Iterator[str]:
    """All that WORD can mean with its names replaced by VALUES; nothing where it has none of them."""
    beginning, *parts = word.split("$")
    named = [split_name(part, values) for part in parts]
    names = list(dict.fromkeys(name for name, _ in named if name))
    for those in itertools.product(*(values[name] for name in names)) if names else ():
        chosen = {"": "$", **dict(zip(names, those, strict=True))}
        yield beginning + "".join(chosen[name] + rest for name, rest in named)


def split_name(part: str, names: Iterable[str]) -> tuple[str, str]:
    """Which of NAMES is at the front of PART, what follows a $, and the rest; "" for none."""
    for name in names:
        if part.startswith(f"{{{name}}}"):
            return name, part[len(name) + 2 :]
        after = part[len(name) : len(name) + 1]
        if part.startswith(name) and not (after.isascii() and after.isalnum()) and after != "_":
            return name, part[len(name) :]
    return "", part


def origins(environment: dict[str, str], cwd: str, program: str) -> list[str]:
    """The folders in which PROGRAM may lie, as its name and PATH say; where it is a link, its file lies elsewhere."""
    if "/" in program:
        return [os.path.dirname(os.path.join("/", cwd, program))]
    folders = environment.get("PATH", "").split(":") if program else []
    return list(dict.fromkeys(os.path.join("/", cwd, folder) for folder in folders))


def wanted_capabilities(environment: dict[str, str]) -> set[str]:
    wanted = set((environment.get("NVIDIA_DRIVER_CAPABILITIES") or DEFAULT_CAPABILITIES).split(","))
    return wanted | {"compute", "utility"}  # without these two there is nothing to bound


def is_wanted(file: File, capabilities: set[str]) -> bool:
    return "all" in capabilities or file.capability in capabilities


def our_library(ours: dict[str, str], name: str) -> str:
    """The file of libvgpu, fitted to the driver, that stands in for NAME, a file name of the driver's; "" for any
    other file. OURS are those files by SONAME.
    """
    for soname, beginning in OURS.items():
        if name.startswith(beginning):
            return ours[soname]
    return ""


def add_libraries(plan: Plan, inventory: Inventory, capabilities: set[str], image: ImageDriver | None) -> None:
    ours = inventory.ours | ({"libcuda.so.1": image.ours} if image else {})
    for soname in OURS:
        real = [file.path for file in inventory.libraries if soname in file.names]
        if not real:
            raise RefusalError(f"the driver's {soname} is missing on this host; reinstall the NVIDIA driver")
        if image and soname == "libcuda.so.1":
            plan.line("image-real", soname, image.path, image.stamp)
        else:
            plan.line("real", soname, need(real[0]))
        plan.line("ours", soname, need(our_library(ours, soname)))
    for file in inventory.libraries:
        if is_wanted(file, capabilities):
            for name in file.names:
                plan.line("library", name, our_library(ours, name) or need(file.path))


def add_programs(plan: Plan, inventory: Inventory, capabilities: set[str]) -> None:
    for file in inventory.programs:
        if is_wanted(file, capabilities):
            for name in file.names:
                plan.line("program", f"/usr/bin/{name}", need(file.path))


def add_nodes(plan: Plan, host: Host, gpus: list[Gpu]) -> None:
    """A device node becomes a device of the spec; a file that stands in for one (a simulated GPU) is mounted."""
    for name in node_names(gpus):
        source = os.path.join(host.devices, name)
        try:
            status = os.stat(source)
        except OSError as error:
            raise RefusalError(
                f"the driver's device node {source} can't be used: {reason(error)}; run nvidia-smi on the host, which "
                "loads the driver, and nvidia-modprobe -u -c0 (-f with the file of a capability, for one of MIG)",
            ) from error
        target = f"/dev/{name}"
        if stat.S_ISCHR(status.st_mode):
            plan.edits.append(AddDevice(source, status, target))
        elif stat.S_ISREG(status.st_mode):
            plan.line("device", target, source)
        else:
            raise RefusalError(f"{source} is neither a device node nor a file; see the driver's installation")


def node_names(gpus: list[Gpu]) -> list[str]:
    """The nodes that a container with GPUS needs, below the devices' folder."""
    names = [*CONTROL_NODES]
    for gpu in gpus:
        if gpu.parent is not None and not gpu.capabilities:
            raise RefusalError(
                f"{gpu.index} is an instance of a GPU (MIG), and the driver names no capability nodes for it in "
                "/proc/driver/nvidia-caps/mig-minors; see whether its module has nv_cap_enable_devfs=1",
            )
        names += [f"nvidia{gpu.minor}", *map(node_name, gpu.capabilities)]
    return list(dict.fromkeys(names))


def need(path: str) -> str:
    """PATH, if there is such a file."""
    if not os.path.isfile(path):
        raise RefusalError(f"{path} is missing on this host; install the driver or runai-runtime again")
    return path
