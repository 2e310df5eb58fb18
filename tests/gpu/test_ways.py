"""Every way to device memory that CUDA and Vulkan have, with libvgpu on and off: what the device gave at most, read by
NVML outside every few milliseconds.

On: the program opens libcuda.so.1 as any program does. Off: it opens the driver's own, which a volume brings into the
container under a path that nothing covers. Each test prints a line for docs/measurements.md:

    WAY name libvgpu on|off share MIB most MIB got MIB answer
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import CompletedProcess

import pytest

from tests.gpu.host import MIB, GpuHost
from tests.gpu.watch import Watch

pytestmark = pytest.mark.may_skip("needs an NVIDIA GPU; with libvgpu off an agent; for Vulkan a loader")

CUDAWAYS, PRIVATE = "/cudaways", "/private/driver.so"  # a mount that is called libcuda.so.1 would be covered
RAWGPU = "/rawgpu"
VULKANFILL, LOADER = "/vulkanfill", "/vulkan/libvulkan.so.1"
NO_VULKAN = "no_driver_has_a_device"
VULKAN_DRIVERS = ("libEGL_nvidia.so.0", "libGLX_nvidia.so.0")
"""The driver's own library is both: the first one needs no X11 libraries."""
HOLD = "0.6"
"""Seconds for which memory is held: the agent looks every 100 ms, and acts at the second look. It looks for managed
memory once a second.
"""
HOLD_MANAGED = "2.5"


@dataclass(frozen=True)
class Way:
    """share: MiB. whole: one process can use nearly all of the share in this way alone. counted: libvgpu counts it by
    itself (docs/limits.md). processes: so many at once.
    """

    name: str
    share: int = 3072
    whole: bool = True
    counted: bool = True
    processes: int = 1
    beside: int = 0
    """Bytes that the driver may take beside it, for all containers of the GPU together."""


UVM_STEP = 128 * MIB
"""nvidia-uvm takes managed memory in steps of so much (its parameter uvm_perf_pma_batch_nonpinned_order, 6: 64 pages of
2 MiB), and what is left of one is for whoever asks next.
"""

WAYS = {
    "linear": Way("linear"),
    "pitched": Way("pitched"),
    "small": Way("small", share=1024),
    "pool": Way("pool"),
    "own-pool": Way("own-pool"),
    "handles": Way("handles"),
    "mapped-handles": Way("mapped-handles"),
    "exported": Way("exported", counted=False),
    "array": Way("array", counted=False),
    "array-3d": Way("array-3d", counted=False),
    "mipmap": Way("mipmap", counted=False),
    "graph": Way("graph", counted=False),
    "module": Way("module", counted=False),
    "managed": Way("managed", share=1024, whole=False, beside=UVM_STEP - 2 * MIB),
    # These come in pieces of hundreds of MiB: what is left is less than one of them.
    "context": Way("context", whole=False),
    "heap": Way("heap", whole=False, counted=False),
    "fifo": Way("fifo", whole=False, counted=False),
    "stack": Way("stack", whole=False, counted=False),
    "local": Way("local", whole=False, counted=False),
    "eight-processes": Way("linear", share=8192, processes=8),
}


@dataclass(frozen=True)
class Outcome:
    """What was got and what the device gave at most, in bytes, with the program's last errors."""

    got: int
    most: int
    errors: Sequence[str]
    ended: bool

    @property
    def answer(self) -> str:
        """In the words of docs/threats.md; "failed" is a way that this driver hasn't, or that is built wrongly."""
        if self.ended:
            return "detected"
        if any("OUT_OF" in error for error in self.errors):
            return "denied"
        return "went through" if any(error.endswith("SUCCESS") for error in self.errors) else "failed"


@pytest.fixture
def enforcement(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--enforcement"))


def look(host: GpuHost, options: Sequence[str], *command: str) -> Outcome:
    watch = Watch(host)
    with watch.watching():
        done = host.run(options, *command, check=False)
    return outcome(done, watch.most)


def outcome(done: CompletedProcess[str], most: int) -> Outcome:
    print(done.stdout, done.stderr, sep="")
    taken = re.findall(r"^\S+ got (\d+) in \d+ last (\S+)$", done.stdout, re.MULTILINE)
    ended = done.returncode == 137 or "ended by signal 9" in done.stdout
    assert taken or ended, f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    return Outcome(sum(int(got) for got, _ in taken), most, sorted({error for _, error in taken}), ended)


def report(name: str, libvgpu: str, share: int, seen: Outcome) -> None:
    figures = f"share {share} most {seen.most / MIB:.1f} got {seen.got / MIB:.1f}"
    print(f"WAY {name} libvgpu {libvgpu} {figures} {seen.answer} {' '.join(seen.errors)}")


@pytest.mark.parametrize("libvgpu", ["on", "off"])
@pytest.mark.parametrize("name", WAYS)
def test_a_way_to_device_memory(gpu_host: GpuHost, enforcement: str, name: str, libvgpu: str) -> None:
    way = WAYS[name]
    if enforcement == "interposer" and (libvgpu == "off" or not way.counted):
        pytest.skip("without the agent nothing bounds what libvgpu doesn't count")
    options = gpu_host.share(f"{way.share}m", f"--volume={gpu_host.program('cudaways')}:{CUDAWAYS}:ro")
    hold = HOLD_MANAGED if name == "managed" else HOLD
    command = [CUDAWAYS, "-s", hold, "-m", str(2 * way.share * MIB), "-n", str(way.processes)]
    if libvgpu == "off":
        options.append(f"--volume={real_libcuda(gpu_host)}:{PRIVATE}:ro")
        command += ["-l", PRIVATE]
    seen = look(gpu_host, options, *command, way.name)
    report(name, libvgpu, way.share, seen)
    if name == "managed" and libvgpu == "off":
        assert seen.ended  # no call asks for it, so it can only be found
        return
    assert seen.most <= 1.01 * way.share * MIB + way.beside
    if way.whole:
        assert seen.most >= 0.97 * way.share * MIB
        assert seen.answer == "denied"


def real_libcuda(host: GpuHost) -> str:
    return next(file.path for file in host.inventory.libraries if "libcuda.so.1" in file.names)


@pytest.mark.parametrize("parts", ["context", "groups", "shares"])
def test_parts_of_contexts_by_ioctl(gpu_host: GpuHost, enforcement: str, parts: str) -> None:
    """Memory that the driver takes for what no request names, as much of it as a program can bring about."""
    if enforcement == "interposer":
        pytest.skip("without the agent nothing bounds a program that only makes ioctls")
    share, watch = 1024, Watch(gpu_host)
    options = gpu_host.share(f"{share}m", f"--volume={gpu_host.program('rawgpu')}:{RAWGPU}:ro")
    number = gpu_host.inventory.gpus[0].minor
    with watch.watching():
        done = gpu_host.run(options, "sh", "-c", f"sleep {HOLD} | {RAWGPU} -g {number} -w {parts} 512", check=False)
    print(done.stdout, done.stderr, sep="")
    made = re.search(r"^(\d+) \w+, (status 0x0|status 0x51|\w+ \w+)", done.stdout)
    ended = done.returncode == 137
    errors = [{"status 0x51": "OUT_OF_MEMORY", "status 0x0": "SUCCESS"}.get(made[2], made[2])] if made else []
    report(f"raw-{parts}", "off", share, Outcome(0, watch.most, errors, ended))
    assert watch.most <= 1.01 * share * MIB
    assert ended or (made and int(made[1]) > 0)


def test_vulkan(gpu_host: GpuHost, enforcement: str) -> None:
    """With a loader brought along, on the device nodes that a container with a share has: no /dev/dri, and no
    /dev/nvidia-modeset.
    """
    loader = gpu_host.brought("vulkan/libvulkan.so.1")
    if enforcement == "interposer":
        pytest.skip("libvgpu knows nothing of Vulkan")
    if loader is None:
        pytest.skip("the folder of --programs has no vulkan/libvulkan.so.1")
    share, folder = 3072, LOADER.rpartition("/")[0]
    brought = [
        "--tmpfs=/tmp",
        f"--volume={loader.parent}:{folder}:ro",
        f"--volume={gpu_host.program('vulkanfill')}:{VULKANFILL}:ro",
    ]
    capabilities = "--env=NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics"
    options = gpu_host.share(f"{share}m", *brought, capabilities, f"--env=LD_LIBRARY_PATH={folder}")
    command = (VULKANFILL, "-s", HOLD, "-m", str(2 * share * MIB), LOADER, *VULKAN_DRIVERS)
    seen = look(gpu_host, options, *command)
    report("vulkan", "off", share, seen)
    if NO_VULKAN in seen.errors:
        native = gpu_host.run(
            [*gpu_host.native(), *brought, f"--env=LD_LIBRARY_PATH=/driver:{folder}"], *command, check=False
        )
        print("without a share:", native.stdout, native.stderr)
        if NO_VULKAN in native.stdout:
            pytest.skip(f"the driver has no Vulkan device without a share either: {native.stdout}{native.stderr}")
    assert seen.most <= 1.01 * share * MIB
    assert seen.most >= 0.97 * share * MIB
    assert seen.answer == "denied"
