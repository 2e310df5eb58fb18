"""runai-ctl doctor --live on a real GPU: a container made on the spot, in which the probe tries to take more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.host import MIB, GpuHost

pytestmark = pytest.mark.may_skip("needs an NVIDIA GPU")

# The installed package, whatever lies in the folder that this is started from.
CTL = [sys.executable, "-I", "-c", "from runai_runtime.ctl import main; main()"]


def test_a_share_is_held(gpu_host: GpuHost, tmp_path: Path) -> None:
    engine = gpu_host.engine
    program = engine.runtimes["runai"]
    daemon = tmp_path / "daemon.json"
    daemon.write_text(json.dumps({"runtimes": {"runai": {"path": str(program)}}}))
    files = [f"--config={program.with_name('config.json')}", f"--daemon-json={daemon}"]
    environment = {**os.environ, "DOCKER_HOST": engine.host, "RUNAI_DOCKER": str(engine.program("docker"))}
    before = engine.docker("images", "--all", "--quiet").stdout
    done = subprocess.run(
        [*CTL, "doctor", "--live", "--format=json", *files],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(done.stdout)
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    for gpu in gpu_host.inventory.gpus:
        one = found[f"share of GPU {gpu.index}"]
        assert one["level"] == "ok", (one, done.stderr)
        share, took, *around = map(int, re.findall(r"\d+", one["what"]))
        # All of the share but what the context takes, to within the blocks that the probe asks for and those that the
        # driver keeps for itself. Around libvgpu there is an agent, or nothing was tried.
        most = share - gpu.context // MIB + 8
        assert most - 72 <= took <= most
        assert all(further <= most for further in around)
    assert engine.docker("images", "--all", "--quiet").stdout == before
    assert engine.docker("ps", "--all", "--quiet").stdout == ""
