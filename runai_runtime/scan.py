"""A look at the host: NVML's GPUs, the driver's files, what a context takes. Slow; inventory.py caches it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pynvml

from runai_runtime.able import agent_faults, filter_flags
from runai_runtime.cdi import read_folders
from runai_runtime.configure import runtimes_behind
from runai_runtime.errors import RefusalError
from runai_runtime.files import write_whole
from runai_runtime.fit import fit_to_driver, forget_copies
from runai_runtime.host import Host
from runai_runtime.hostlog import note
from runai_runtime.inventory import VERSION, cache_path, circumstances, read_cache, read_values, stamp
from runai_runtime.mig import caps_major, instances_made, read_minors
from runai_runtime.plan import OURS
from runai_runtime.request import GRANULE
from runai_runtime.scan_mig import instances_of, is_divided, measure_instances

# The driver's files by capability, as NVIDIA_DRIVER_CAPABILITIES names them. A file is STEM.so.DRIVER_VERSION, with
# links to it (its SONAME, and for linkers STEM.so) beside it.
LIBRARIES = {
    "compute": (
        *("libcuda", "libcudadebugger", "libnvidia-opencl", "libnvidia-gpucomp", "libnvidia-ptxjitcompiler"),
        *("libnvidia-allocator", "libnvidia-nvvm", "libnvidia-nvvm70", "libnvidia-compiler"),
        *("libnvidia-pkcs11", "libnvidia-pkcs11-openssl3"),
    ),
    "utility": ("libnvidia-ml", "libnvidia-cfg"),
    "video": ("libnvcuvid", "libnvidia-encode", "libnvidia-opticalflow"),
    "graphics": (
        *("libnvidia-eglcore", "libnvidia-glcore", "libnvidia-glsi", "libnvidia-tls", "libnvidia-fbc"),
        *("libnvidia-rtcore", "libnvidia-glvkspirv", "libnvoptix", "libGLX_nvidia", "libEGL_nvidia"),
        *("libGLESv2_nvidia", "libGLESv1_CM_nvidia", "libvdpau_nvidia"),
    ),
}

PROGRAMS = {"utility": ("nvidia-smi", "nvidia-debugdump")}

# Where drivers put their libraries beyond what the loader knows: containers' hosts, Debian, NixOS.
LIBRARY_FOLDERS = (
    *("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"),
    *("/usr/lib/x86_64-linux-gnu/nvidia/current", "/usr/lib/nvidia/current", "/run/opengl-driver/lib"),
)
PROGRAM_FOLDERS = (
    "/usr/bin",
    "/usr/local/nvidia/bin",
    "/usr/local/bin",
    "/bin",
    "/opt/bin",
    "/run/current-system/sw/bin",
)

# NVML's figure for a process leaves this out for each context (measured on an H100, driver 580).
CONTEXT_HIDDEN = 8 << 20
# And what a process takes besides its context, by the device's figure: 0.8 MiB there.
PROCESS_HIDDEN = 1 << 20

LDCONFIG_SECONDS = 10  # it reads one small file; where a file system hangs it may never end

NO_DRIVER = 'install the NVIDIA driver, or name its folders as "driver": {{"libraries": ["/FOLDER"]}} in {}'


def write_cache(host: Host) -> None:
    """Scan the host into its cache, unless another process has just done so: after a boot, many containers start at
    once. Raises RefusalError without a driver or a GPU.
    """
    os.makedirs(host.state, mode=0o711, exist_ok=True)
    with locked(host.fitted):
        if read_cache(host) is None:
            values = read_values(host) or scan(host)  # where only CDI files are new, nobody has to ask the driver
            values["cdi"] = read_folders(host.cdi_spec_dirs, values["gpus"])
            for fault in values["cdi"]["faults"]:
                note(host.log, "info", f"left out of the CDI specifications: {fault}")
            write_whole(Path(cache_path(host)), json.dumps(values, indent=1), 0o644)
            forget_copies(host, values["ours"])


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """FOLDER, made if need be, for this process alone."""
    os.makedirs(folder, mode=0o755, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def scan(host: Host) -> dict[str, Any]:
    """The inventory in the form in which it is cached, without the CDI specifications."""
    now = circumstances(host)  # first: what changes meanwhile makes the answer stale
    folders = library_folders(host)
    drivers = bounded_libraries(folders)
    for name, path in drivers.items():
        if not path:
            advice = NO_DRIVER.format(host.path)
            raise RefusalError(f"this host has no NVIDIA driver: {name} is in none of its library folders; {advice}")
    cuda, nvml = drivers["libcuda.so.1"], drivers["libnvidia-ml.so.1"]
    ours = fit_to_driver(host, drivers)
    sources = [os.path.join(host.libvgpu, soname) for soname in ours]
    instances = instances_made(host)
    driver, cuda_version, gpus, divided = ask_nvml(nvml, read_minors(host))
    contexts = measure_contexts(cuda, gpus, divided=bool(divided))
    agent = agent_faults(low_level(host))
    return {
        "version": VERSION,
        "circumstances": now,
        "instances": instances,
        "no_instances": sorted({gpu["index"] for gpu in divided} - {gpu.get("parent") for gpu in gpus}),
        "for": host.driver,
        "libvgpu": host.libvgpu,
        "fitted": host.fitted,
        "runtimes": host.runtimes,
        "stamps": {path: stamp(path) for path in (cuda, nvml, *sources, *ours.values(), *agent)},
        "ours": ours,
        "agent": agent,
        "flags": filter_flags(agent),
        "driver": driver,
        "cuda": cuda_version,
        "gpus": [gpu | {"context": contexts.get(gpu["uuid"], 0)} for gpu in gpus],
        "divided": [gpu | {"context": 0} for gpu in divided],
        "caps_major": caps_major(),
        "libraries": list(libraries(folders, driver)),
        "programs": list(programs(host.driver.get("programs", PROGRAM_FOLDERS))),
    }


def low_level(host: Host) -> list[str]:
    """The runtimes that may make containers: the configured one, or those behind NVIDIA's."""
    runtime, *behind = host.runtimes
    values = {"runtime": runtime} | ({"behind_nvidia": behind} if behind else {})
    return list(runtimes_behind(values).values()) or [runtime]


def library_folders(host: Host) -> list[str]:
    """Where the driver's libraries may lie, the best guess first."""
    configured: list[str] | None = host.driver.get("libraries")
    folders = configured if configured is not None else [*known_to_loader(), *LIBRARY_FOLDERS]
    return list(dict.fromkeys(folders))


def known_to_loader() -> list[str]:
    """The folders from which the host's loader takes 64-bit driver libraries."""
    try:
        return [os.path.dirname(path) for name, path in loader_libraries() if name in OURS]
    except (OSError, subprocess.SubprocessError):
        return []


def loader_libraries() -> list[tuple[str, str]]:
    """Name and path of the 64-bit libraries in the cache of the host's loader, in its order. Raises OSError, or
    SubprocessError where ldconfig fails or takes longer than LDCONFIG_SECONDS.
    """
    listing = subprocess.run(
        ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True, timeout=LDCONFIG_SECONDS
    ).stdout
    found = []
    for line in listing.splitlines():
        name, _, rest = line.strip().partition(" ")
        kind, arrow, path = rest.partition(" => ")
        if arrow and "64" in kind:
            found.append((name, path))
    return found


def bounded_libraries(folders: list[str]) -> dict[str, str]:
    """The driver's libraries for which libvgpu stands in, by SONAME; "" for one that isn't there."""
    return {soname: find(folders, soname) for soname in OURS}


def find(folders: list[str], name: str) -> str:
    """The real path of the first file called NAME, or ""."""
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return os.path.realpath(path)
    return ""


def libraries(folders: list[str], driver: str) -> Iterator[dict[str, Any]]:
    for capability, stems in LIBRARIES.items():
        for stem in stems:
            path = find(folders, f"{stem}.so.{driver}") or find(folders, f"{stem}.so.1")
            if path:
                yield {"path": path, "names": names_of(path, stem, folders), "capability": capability}


def names_of(path: str, stem: str, folders: list[str]) -> list[str]:
    """PATH's own name and those of the links to it."""
    names = {os.path.basename(path)}
    for folder in dict.fromkeys((os.path.dirname(path), *folders)):
        links = glob.glob(os.path.join(glob.escape(folder), f"{stem}.so*"))
        names.update(os.path.basename(link) for link in links if os.path.realpath(link) == path)
    return sorted(names)


def programs(folders: Iterable[str]) -> Iterator[dict[str, Any]]:
    for capability, names in PROGRAMS.items():
        for name in names:
            path = find_program(folders, name)
            if path:
                yield {"path": path, "names": [name], "capability": capability}


def find_program(folders: Iterable[str], name: str) -> str:
    """The real path of the first native program called NAME, or "". A host may have a script of that name in front,
    which would look in the container for the program.
    """
    for folder in folders:
        path = os.path.realpath(os.path.join(folder, name))
        try:
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    return path
        except OSError:
            continue
    return ""


def ask_nvml(library: str, minors: dict[str, int]) -> tuple[str, str, list[dict[str, Any]], list[dict[str, Any]]]:
    """The driver's version, the newest CUDA that it can do, its GPUs, where one in MIG mode stands by its instances,
    and those in MIG mode; without those that fell off the bus. MINORS: of the instances' capability nodes.
    """
    gpus: list[dict[str, Any]] = []
    divided: list[dict[str, Any]] = []
    lost = 0
    try:
        ctypes.CDLL(library)  # pynvml asks for it by SONAME, which is then this one wherever it lies
        pynvml.nvmlInit()
    except (OSError, pynvml.NVMLError) as error:
        raise RefusalError(f"the NVIDIA driver doesn't answer ({error}); see whether nvidia-smi works") from error
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                add_gpu(index, minors, gpus, divided)
            except pynvml.NVMLError_GpuIsLost:  # noqa: PERF203 - beside it others go on
                lost += 1
        driver = text(pynvml.nvmlSystemGetDriverVersion())
        cuda = cuda_text(pynvml.nvmlSystemGetCudaDriverVersion())
    except pynvml.NVMLError as error:
        raise RefusalError(f"the GPUs can't be read ({error}); see whether nvidia-smi works") from error
    if lost and not gpus and not divided:
        raise RefusalError(
            "this host has no GPU that answers, all fell off the bus; see nvidia-smi and the kernel's log"
        )
    if divided and not gpus:
        raise RefusalError(
            "this host's GPUs are in MIG mode and have no instances; make some (nvidia-smi mig -cgi PROFILES -C), or "
            "turn MIG mode off (nvidia-smi -mig 0)",
        )
    if not gpus:
        raise RefusalError("this host has an NVIDIA driver and no GPU; see whether nvidia-smi shows one")
    return driver, cuda, gpus, divided


def add_gpu(index: int, minors: dict[str, int], gpus: list[dict[str, Any]], divided: list[dict[str, Any]]) -> None:
    """The GPU of that index to GPUS, or to those DIVIDED and its instances to GPUS. Raises NVMLError."""
    device = pynvml.nvmlDeviceGetHandleByIndex(index)
    place = {"minor": pynvml.nvmlDeviceGetMinorNumber(device), "bus": text(pynvml.nvmlDeviceGetPciInfo(device).busId)}
    gpu = describe(device) | {"index": index, **place}
    if is_divided(device):
        instances = instances_of(device, gpu, minors, describe)
        divided.append(gpu)
        gpus += instances
    else:
        gpus.append(gpu)


def describe(device: Any) -> dict[str, Any]:
    """What NVML says of a GPU, or of an instance of one."""
    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    reserved = 0
    with contextlib.suppress(pynvml.NVMLError, AttributeError):  # version 2 came with R510
        reserved = pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2).reserved
    return {
        "uuid": text(pynvml.nvmlDeviceGetUUID(device)),
        "name": text(pynvml.nvmlDeviceGetName(device)),
        "total": int(memory.total),
        "reserved": int(reserved),
    }


def cuda_text(version: int) -> str:
    """As CUDA writes it: 13000 is 13.0."""
    return f"{version // 1000}.{version % 1000 // 10}"


def text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def measure_contexts(cuda: str, gpus: list[dict[str, Any]], *, divided: bool) -> dict[str, int]:
    """Bytes that a bare context takes, by GPU: makes one on each for a moment and asks the driver. DIVIDED: some are in
    MIG mode.

    A GPU on which that fails (none free, exclusive mode) is left out: libvgpu then asks the driver in the container.
    """
    for name in [name for name in os.environ if name.startswith("CUDA_")]:
        del os.environ[name]
    found: dict[str, int] = {}
    if divided:
        found |= measure_instances(cuda, gpus, measure_context)
        whole = [gpu["uuid"] for gpu in gpus if "parent" not in gpu]
        if not whole:
            return found
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(whole)  # beside an instance CUDA shows none of them
    count = ctypes.c_int()
    try:
        library = ctypes.CDLL(cuda)
    except OSError:
        return found
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return found
    for device in range(count.value):
        raw = (ctypes.c_ubyte * 16)()
        if library.cuDeviceGetUuid(ctypes.byref(raw), device) == 0:
            uuid = uuid_text(bytes(raw))
            with contextlib.suppress(pynvml.NVMLError):
                found[uuid] = measure_context(library, device, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    return found


def measure_context(library: ctypes.CDLL, device: int, handle: Any) -> int:
    """Bytes that a context takes on DEVICE, in whole blocks of the driver's; 0 where that can't be told.

    The figure for the process leaves a part out, and what the device has in use beyond it may be somebody else's: the
    larger of both counts, as long as they are close.
    """
    before = pynvml.nvmlDeviceGetMemoryInfo(handle).used
    context = ctypes.c_void_p()
    if library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return 0
    try:
        taken = pynvml.nvmlDeviceGetMemoryInfo(handle).used - before
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    finally:
        library.cuDevicePrimaryCtxRelease_v2(device)
    figure = next((process.usedGpuMemory for process in processes if process.pid == os.getpid()), None)
    if not figure:
        return 0
    known = int(figure) + CONTEXT_HIDDEN
    size = PROCESS_HIDDEN + (max(known, taken) if taken - known <= CONTEXT_HIDDEN else known)
    return (int(size) + GRANULE - 1) // GRANULE * GRANULE


def uuid_text(raw: bytes) -> str:
    """As NVML writes it."""
    digits = raw.hex()
    return "GPU-" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
