"""A host that is made up in a folder, where all is well, and what makes it otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from runai_runtime.configure import program
from runai_runtime.doctor.facts import Facts
from runai_runtime.plan import OURS
from tests.docker.host import NATIVE

GPU = {"index": 0, "name": "NVIDIA G", "minor": 0, "uuid": "GPU-0"}
FEATURES = '{"linux": {"seccomp": {"actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"]}}}'
FILES = {
    "dev/nvidiactl": "",
    "dev/nvidia-uvm": "",
    "dev/nvidia0": "",
    "dev/char/195:255": "",
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process errno user_notif allow\n",
    "proc/sys/kernel/yama/ptrace_scope": "1\n",
    "proc/1/comm": "systemd\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/module/nvidia_uvm/parameters/uvm_disable_hmm": "Y\n",
    "usr/bin/docker": "",
}


class Made:
    """The host. `facts` is what the checks look at; what is changed before that is taken is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.config, self.daemon = folder / "config.json", folder / "daemon.json"
        self.program = folder / "runai-runtime"
        for name, text in FILES.items():
            self.write(name, text)
        self.runc = self.script("runc", f"echo '{FEATURES}'")
        (folder / "driver").mkdir()
        for soname in OURS:
            (folder / "driver" / soname).symlink_to(NATIVE / soname)
        self.info: dict[str, Any] = {
            "ServerVersion": "26.1",
            "CgroupDriver": "systemd",
            "SecurityOptions": ["name=seccomp"],
            "Runtimes": {"runc": {"path": "runc"}, "runai": {"path": str(self.program)}},
        }
        self.nvml: dict[str, Any] = {
            "driver": "580.159.04",
            "cuda": "13.0",
            "gpus": [GPU],
            "divided": [],
            "modes": ["none"],
        }
        self.configure()
        values = json.loads(self.config.read_text())
        self.program.write_text(program(values, self.config, values["runtime"]))
        self.program.chmod(0o755)
        self.register(self.program)
        self.docker: list[str] | None = None

    def configure(self, **more: Any) -> None:
        values = {
            "runtime": str(self.runc),
            "hook": str(NATIVE / "runai-hook"),
            "libvgpu": str(NATIVE),
            "state": str(self.folder)[:20],
            "fitted": str(self.folder / "fitted"),
            "driver": {"libraries": [str(self.folder / "driver")]},
        }
        self.config.write_text(json.dumps(values | more))

    def register(self, path: Path) -> None:
        self.daemon.write_text(json.dumps({"runtimes": {"runai": {"path": str(path)}}}))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def script(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def facts(self) -> Facts:
        docker = self.script("docker", f"cat <<'END'\n{json.dumps(self.info)}\nEND")
        facts = Facts(
            self.config, self.daemon, root=self.root, docker=[str(docker)] if self.docker is None else self.docker
        )
        facts.user = 0
        if self.nvml:
            facts.__dict__["_driver"] = self.nvml  # as if it had been asked
        return facts


def remove(made: Made, name: str) -> None:
    os.unlink(made.root / name)
