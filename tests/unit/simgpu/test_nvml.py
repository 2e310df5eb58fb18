"""Processes as NVML and nvidia-smi show them, and nvidia-smi's own output."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.simgpu.host import SimHost
from tests.unit.simgpu.program import Program, run, settled, smi, smi_processes


def test_nvml_leaves_out_10_mib_a_context(host: SimHost) -> None:
    program = Program(host, "start(); alloc(64 << 20); say('up'); wait()")
    program.line()
    assert smi_processes(host) == {program.process.pid: 150 + 64}
    assert smi(host, "--query-gpu=memory.used", "--format=csv,noheader") == f"{160 + 64} MiB\n"
    program.end()


def test_a_pid_namespace_sees_its_own_processes(host: SimHost) -> None:
    outside = Program(host, "start(); say('up'); wait()")
    outside.line()
    code = """
start()
import subprocess
command = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
say(subprocess.run(command, capture_output=True, text=True).stdout.split())
wait()
"""
    inside = Program(host, code, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    assert inside.line() == "['1']"
    seen = smi_processes(host)
    assert len(seen) == 2 and outside.process.pid in seen and 1 not in seen
    inside.end()
    outside.end()


def test_nvml_in_all_its_versions(host: SimHost) -> None:
    program = Program(host, "start(); say('up'); wait()")
    program.line()
    code = """
nvml = ctypes.CDLL("libnvidia-ml.so.1")
count, device = c_uint(7), c_void_p()
say(nvml.nvmlDeviceGetCount_v2(byref(count)))
assert nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device)) == 0
memory = (c_uint64 * 5)()
assert nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0; say(*(value >> 20 for value in memory[:3]))
say(nvml.nvmlDeviceGetMemoryInfo_v2(device, memory))
memory[0] = 2 << 24 | 40
assert nvml.nvmlDeviceGetMemoryInfo_v2(device, memory) == 0; say(*(value >> 20 for value in memory[1:]))
for version, words in ("", 2), ("_v2", 3), ("_v3", 3):
    call, count, room = getattr(nvml, "nvmlDeviceGetComputeRunningProcesses" + version), c_uint(0), (c_uint64 * words)()
    say(call(device, byref(count), None), count.value, call(device, byref(count), room), room[0], room[1] >> 20)
"""
    pid = str(program.process.pid)
    assert run(host, code) == [
        "1", "10989", str(10989 - 64 - 160), str(64 + 160), "25", "10989", "64", str(10989 - 64 - 160), "160",
        *["7", "1", "0", pid, "150"] * 3,
    ]  # fmt: skip
    program.end()


def test_nvidia_smi_has_the_real_ones_layout(host: SimHost) -> None:
    program = Program(host, "start(); say('up'); wait()")
    program.line()
    lines = smi(host).splitlines()
    assert lines[2] == f"| NVIDIA-SMI 580.159.04             Driver Version: 580.159.04     CUDA Version: 13.0{'|':>6}"
    assert lines[8:11] == [
        "|   0  NVIDIA GeForce RTX 2080 Ti     Off |   00000000:01:00.0 Off |                  N/A |",
        "| 29%   35C    P8             23W /  250W |     160MiB /  10989MiB |      0%      Default |",
        "|                                         |                        |                  N/A |",
    ]
    assert {len(line) for line in lines[1:] if line} == {91}
    row = rf"\|    0   N/A  N/A {program.process.pid:>15}      C   \S+ +150MiB \|"
    assert re.fullmatch(row, lines[-2]), lines[-2]
    program.end()
    settled(host, 0)
    assert "|  No running processes found      " in smi(host)


def test_nvidia_smi_says_what_is_wrong(host: SimHost, tmp_path: Path) -> None:
    command = str(host.bin / "nvidia-smi")
    alone = subprocess.run([command], env={}, stdout=subprocess.PIPE, text=True, check=False)
    assert (alone.returncode, "couldn't find libnvidia-ml.so" in alone.stdout) == (12, True)
    (tmp_path / "libnvidia-ml.so.1").write_bytes((host.lib / "libnvidia-ml.so.1").read_bytes())
    no_driver = subprocess.run(
        [command], env={"LD_LIBRARY_PATH": str(tmp_path)}, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (no_driver.returncode, "couldn't communicate with the NVIDIA driver" in no_driver.stdout) == (9, True)


def test_nvidia_smi_queries(host: SimHost) -> None:
    assert smi(host, "-L").startswith("GPU 0: NVIDIA GeForce RTX 2080 Ti (UUID: GPU-")
    assert smi(host, "--query-gpu=index,name,memory.total,driver_version", "--format=csv").splitlines() == [
        "index, name, memory.total [MiB], driver_version",
        "0, NVIDIA GeForce RTX 2080 Ti, 10989 MiB, 580.159.04",
    ]
    assert "        Total                                          : 10989 MiB" in smi(host, "-q", "-d", "MEMORY")
