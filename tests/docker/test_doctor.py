"""runai-ctl doctor on the simulated host with a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.docker.host import Runai

CTL = str(Path(sys.executable).with_name("runai-ctl"))


def doctor(runai: Runai, folder: Path, name: str, written: str) -> dict[str, dict[str, str]]:
    """The findings by check. WRITTEN is the runtime that daemon.json has."""
    daemon = folder / "daemon.json"
    daemon.write_text(json.dumps({"runtimes": {written: {"path": str(runai.program)}}}))
    config = runai.program.with_name("config.json")
    command = [CTL, "doctor", "--format=json", f"--config={config}", f"--daemon-json={daemon}", f"--name={name}"]
    client = {"DOCKER_HOST": runai.engine.host, "RUNAI_DOCKER": str(runai.engine.program("docker"))}
    done = subprocess.run(
        command, env={**os.environ, **client}, capture_output=True, text=True, check=False, timeout=120
    )
    said = json.loads(done.stdout)
    assert (done.returncode == 0) is said["ok"]
    return {finding["check"]: finding for finding in said["findings"]}


def test_a_host_that_works_has_no_fault(runai: Runai, tmp_path: Path) -> None:
    found = doctor(runai, tmp_path, "runai", "runai")
    assert [finding for finding in found.values() if finding["level"] == "fault"] == []
    assert found["runtime"]["what"] == f"docker has the runtime runai, {runai.program}"
    assert found["registered program"]["level"] == "ok"
    assert "NVIDIA GeForce RTX 2080 Ti" in found["driver"]["what"]
    assert found["driver version"]["level"] == found["device nodes"]["level"] == found["MIG"]["level"] == "ok"


def test_a_runtime_that_the_engine_has_not_read(runai: Runai, tmp_path: Path) -> None:
    found = doctor(runai, tmp_path, "runai-new", "runai-new")
    assert found["runtime"]["level"] == "fault"
    assert "hasn't read it" in found["runtime"]["what"]
    assert found["runtime"]["mend"].startswith("systemctl reload docker")


def test_a_runtime_that_nobody_registered(runai: Runai, tmp_path: Path) -> None:
    found = doctor(runai, tmp_path, "runai-new", "other")
    assert found["runtime"]["what"].startswith("docker has no runtime runai-new")
