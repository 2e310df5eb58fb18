"""A simulated GPU in parts (MIG), as NVIDIA's header and user guide have it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simgpu.config import HostConfig
from tests.simgpu.host import SimHost
from tests.unit.simgpu.program import MIB, Program, run, smi

PARTS = [{"memory_mib": 1024, "reserved_mib": 8}, {"profile": "2g.2gb", "memory_mib": 2048, "gpu_instance": 3}]
GPUS = [{"name": "NVIDIA A100", "memory_mib": 4096, "mig": PARTS}, {"name": "NVIDIA A100", "memory_mib": 4096}]
NVML = """
nvml, device, part = ctypes.CDLL("libnvidia-ml.so.1"), c_void_p(), c_void_p()
assert nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device)) == 0
memory, number = (c_uint64 * 5)(2 << 24 | 40), c_uint(99)
"""


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimHost]:
    with SimHost(tmp_path_factory.mktemp("mig"), {"gpus": GPUS}) as host:
        yield host


def test_what_nvml_tells(divided: SimHost) -> None:
    code = """
for place in (0, 1):
    assert nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place, byref(part)) == 0
    assert nvml.nvmlDeviceGetMemoryInfo_v2(part, memory) == 0
    ids = []
    for call in ("nvmlDeviceIsMigDeviceHandle", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"):
        assert getattr(nvml, call)(part, byref(number)) == 0
        ids.append(number.value)
    say(memory[1] >> 20, memory[2] >> 20, *ids)
say(*(nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place, byref(part)) for place in (2, 7)))
assert nvml.nvmlDeviceGetMaxMigDeviceCount(device, byref(number)) == 0; say(number.value)
assert nvml.nvmlDeviceGetHandleByIndex_v2(1, byref(device)) == 0
assert nvml.nvmlDeviceGetMaxMigDeviceCount(device, byref(number)) == 0; say(number.value)
say(nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, 0, byref(part)))
"""
    words = [*("1024", "8", "1", "7", "0"), *("2048", "16", "1", "3", "0")]
    assert run(divided, NVML + code) == [*words, "6", "2", "7", "0", "3"]


def test_only_an_administrator_sees_the_whole(divided: SimHost) -> None:
    ask = """
os.setgroups([]); os.setgid(1000); os.setuid(1000)
count = c_uint(0)
say(nvml.nvmlDeviceGetMemoryInfo_v2(device, memory))
say(nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, byref(count), None))
assert nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, 0, byref(part)) == 0
say(nvml.nvmlDeviceGetMemoryInfo_v2(part, memory))
"""
    assert run(divided, NVML + ask) == ["4", "4", "0"]


def test_cuda_has_one_instance_and_its_memory(divided: SimHost) -> None:
    first, second = (part.uuid for part in divided.host.instances)
    code = """
start()
count, name, old = c_int(), ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)
assert cuda.cuDeviceGetCount(byref(count)) == 0
assert cuda.cuDeviceGetUuid_v2(name, 0) == cuda.cuDeviceGetUuid(old, 0) == 0
say(count.value, name.raw.hex(), old.raw.hex(), info()[1] >> 20, alloc(1 << 30) > 0)
say("up"); wait()
"""
    board = divided.host.gpus[0].uuid
    for uuid, size, fits in ((first, 1016, False), (second, 2032, True)):
        program = Program(divided, f"os.environ['CUDA_VISIBLE_DEVICES'] = '{uuid}'" + code)
        named, whole = (text[4:].replace("-", "") for text in (uuid, board))
        assert program.line().split() == ["1", named, whole, str(size), str(fits)]
        program.line()
        used = (160 + 1024 * fits) * MIB
        assert [divided.used(2), divided.used(3)] == ([used, 0] if uuid == first else [0, used])
        assert smi(divided, "--query-gpu=memory.used", "--format=csv,noheader") == f"{used // MIB} MiB\n0 MiB\n"
        program.end()


def test_who_can_not_open_the_nodes_has_no_instance(divided: SimHost, tmp_path: Path) -> None:
    """It takes both of its nodes."""
    part = divided.host.instances[1].instance
    assert part is not None
    caps, minors = divided.dev / "nvidia-caps", part.minors(0)
    for minor in minors:
        (tmp_path / f"nvidia-cap{minor}").touch()
    real = tmp_path / f"nvidia-cap{minors[0]}"
    script = f"mount --bind {caps}/{real.name} {real}; rm {tmp_path}/nvidia-cap{minors[1]}"
    script += f"; mount --rbind {tmp_path} {caps}; ls {caps}; nvidia-smi -L"
    command = ["unshare", "--mount", "sh", "-euc", script]
    done = subprocess.run(command, env=divided.environment(), capture_output=True, text=True, check=True)
    listing = done.stdout.splitlines()
    assert listing[0] == real.name
    assert [line.split(":")[0] for line in listing[1:]] == ["GPU 0", "GPU 1"]


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([{"memory": 1}], "unknown field"),
        ([{"memory_mib": 5000}], "don't fit"),
        ([{"memory_mib": 100}, {"memory_mib": 100, "gpu_instance": 7}], "the same"),
    ],
)
def test_a_configuration_that_can_not_be(parts: list[dict[str, int]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        HostConfig.parse({"gpus": [{"memory_mib": 4096, "mig": parts}]})
