"""What has to be in a container with a share: the edits of its spec, and the plan for the hook (docs/architecture.md).

What lies at our paths in the container is decided by the hook, in the container's mount namespace; the plan only says
which of the host's files go where.
"""

from __future__ import annotations

import os
import stat

from runai_runtime.edits import AddDevice, AddHook
from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.host import Host
from runai_runtime.inventory import File, Gpu, Inventory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

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
        self.lines: list[str] = ["runai-plan\t1"]

    def line(self, *fields: str) -> None:
        for field in fields:
            if "\t" in field or "\n" in field:
                raise RefusalError(f"the path {quoted(field)} has a tab or a line break in it; give it another name")
        self.lines.append("\t".join(fields))

    def sources(self, *kinds: str) -> list[str]:
        """The host's files in the lines of these KINDS."""
        split = [line.split("\t") for line in self.lines]
        return [fields[2] for fields in split if fields[0] in kinds and len(fields) == 3]

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def make_plan(
    host: Host,
    inventory: Inventory,
    gpus: list[Gpu],
    grant: str,
    rootfs: str,
    environment: dict[str, str],
    cwd: str = "/",
    search: Iterable[str] = (),
    image: ImageDriver | None = None,
    program: str = "",
) -> Plan:
    """The plan for a container with GPUS, whose grant lies in the folder GRANT and whose first program is PROGRAM.
    SEARCH: more folders of the container that may have libraries of the driver. IMAGE is the libcuda that the image
    brings along, if that is to be used.
    """
    plan = Plan()
    plan.line("rootfs", rootfs)
    add_libraries(plan, inventory, wanted_capabilities(environment), image)
    add_programs(plan, inventory, wanted_capabilities(environment))
    add_nodes(plan, host, gpus)
    for folder in dict.fromkeys([*search_folders(environment, cwd, program), *search]):
        plan.line("search", folder)
    for library in preloaded(environment, cwd, program):
        plan.line("preload", library)
    need(host.hook)
    plan.edits += [AddHook(stage, host.hook, grant) for stage in STAGES]
    return plan


# What the loader puts for $LIB, by distribution (ld.so(8)).
LIB = ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib")


def search_folders(environment: dict[str, str], cwd: str, program: str = "") -> list[str]:
    """The folders of the container that its LD_LIBRARY_PATH names."""
    words = environment.get("LD_LIBRARY_PATH", "").replace(";", ":")
    return expanded(words.split(":"), environment, cwd, program) if words else []


def preloaded(environment: dict[str, str], cwd: str, program: str = "") -> list[str]:
    """The files that its LD_PRELOAD names. A bare name is looked for where every library is."""
    words = environment.get("LD_PRELOAD", "").replace(":", " ").split(" ")
    return expanded([word for word in words if "/" in word], environment, cwd, program)


def expanded(words: list[str], environment: dict[str, str], cwd: str, program: str) -> list[str]:
    """The loader's WORDS as absolute paths: one that is relative, or empty, counts from the working directory.

    $ORIGIN is known for the container's first program alone.
    """
    paths: list[str] = []
    for word in words:
        for lib in LIB if "LIB" in word else ("",):
            for origin in origins(environment, cwd, program) if "ORIGIN" in word else ("",):
                path = replaced(replaced(word, "LIB", lib), "ORIGIN", origin)
                if "$" not in path and not set(path) & {"\t", "\n"}:
                    paths.append(os.path.join("/", cwd, path))
    return list(dict.fromkeys(paths))


def replaced(word: str, name: str, value: str) -> str:
    return word.replace(f"${{{name}}}", value).replace(f"${name}", value)


def origins(environment: dict[str, str], cwd: str, program: str) -> list[str]:
    """The folders in which PROGRAM may lie, as its name and PATH say; where it is a link, its file lies elsewhere."""
    if "/" in program:
        return [os.path.dirname(os.path.join("/", cwd, program))]
    folders = environment.get("PATH", "").split(":") if program else []
    return [os.path.join("/", cwd, folder) for folder in folders]


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
    for name in (*CONTROL_NODES, *(f"nvidia{gpu.minor}" for gpu in gpus)):
        source = os.path.join(host.devices, name)
        try:
            status = os.stat(source)
        except OSError as error:
            raise RefusalError(
                f"the driver's device node {source} can't be used: {reason(error)}; run nvidia-smi on the host, which "
                "loads the driver, and nvidia-modprobe -u -c0",
            ) from error
        target = f"/dev/{name}"
        if stat.S_ISCHR(status.st_mode):
            plan.edits.append(AddDevice(source, status, target))
        elif stat.S_ISREG(status.st_mode):
            plan.line("device", target, source)
        else:
            raise RefusalError(f"{source} is neither a device node nor a file; see the driver's installation")


def need(path: str) -> str:
    """PATH, if there is such a file."""
    if not os.path.isfile(path):
        raise RefusalError(f"{path} is missing on this host; install the driver or runai-runtime again")
    return path
