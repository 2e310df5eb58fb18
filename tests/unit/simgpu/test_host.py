"""The host as a whole: its nodes, several GPUs, its start and its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.simgpu.host import REPOSITORY, SimHost
from tests.unit.simgpu.program import PRELUDE, Program, smi

EIGHT = {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "reserved_mib": 480, "context_mib": 526}] * 8}


def is_mounted(folder: Path) -> bool:
    """By the list of mounts: os.path.ismount also denies it for one whose server is just going away."""
    return f" {folder} " in Path("/proc/self/mounts").read_text()


def test_nodes_in_dev_for_a_library_that_lies_elsewhere(host: SimHost, tmp_path: Path) -> None:
    """As in a container: the library in some folder, its nodes bind-mounted into /dev, the user not root."""
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    tmp_path.chmod(0o755)
    for name in ("nvidiactl", "nvidia0", "nvidia-uvm"):
        (nodes / name).touch()
    library = tmp_path / "libcuda.so.1"
    library.write_bytes((host.lib / "libcuda.so.1").read_bytes())
    script = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
cp {library} /mnt/libcuda.so.1
for node in nvidiactl nvidia0 nvidia-uvm; do mount --bind {host.dev}/$node {nodes}/$node; done
mount --rbind {nodes} /dev
cd / && LD_LIBRARY_PATH=/mnt exec setpriv --reuid 1000 --clear-groups {Path(sys.executable).resolve()} -S -c "$CODE"
"""
    code = PRELUDE + "start(); alloc(64 << 20); say(os.getuid(), info()[0] >> 20)"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False)
    assert done.stdout == f"1000 {10989 - 64 - 160 - 64}\n", done.stderr


def test_eight_gpus(tmp_path: Path) -> None:
    with SimHost(tmp_path, EIGHT) as host:
        assert len(set(re.findall(r"GPU-[-0-9a-f]{36}", smi(host, "-L")))) == 8
        assert smi(host).count("|       0MiB /  81559MiB |") == 8
        assert smi(host, "-i", "3,5", "--query-gpu=index", "--format=csv,noheader").split() == ["3", "5"]
        program = Program(host, "start(5); alloc(64 << 20); say(info()[1] >> 20); wait()")
        assert program.line() == "81079"
        assert [host.used(gpu) >> 20 for gpu in range(8)] == [0, 0, 0, 0, 0, 526 + 64, 0, 0]
        program.end()
        program.close()
    assert not is_mounted(host.dev)


def test_a_second_host_and_a_stale_mount(host: SimHost, tmp_path: Path) -> None:
    other = SimHost(tmp_path)
    other.start()
    assert other._kernel is not None
    with other._kernel:
        other._kernel.kill()
    with SimHost(tmp_path) as again:
        assert again.used() == 0 and host.used() == 0


def test_in_the_foreground_until_sigterm(host: SimHost, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.simgpu", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == f"{tmp_path}\n"
        assert (tmp_path / "dev" / "nvidia0").exists()
        program.terminate()
        assert program.wait(10) == 0
    assert list((tmp_path / "dev").iterdir()) == []


def test_it_ends_with_whoever_started_it(host: SimHost, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.simgpu", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.kill()
    for _ in range(200):
        if not is_mounted(tmp_path / "dev"):
            break
        time.sleep(0.01)
    assert list((tmp_path / "dev").iterdir()) == []
