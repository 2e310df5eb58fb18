"""prepare() without an engine: a host of empty files, and one container after another."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runai_runtime import prepare as module
from runai_runtime.commandline import CommandLine
from runai_runtime.errors import RefusalError
from runai_runtime.grant import remove_grant
from runai_runtime.inventory import Inventory
from runai_runtime.plan import OURS
from tests.docker.host import grants_in

GIB = 1 << 30
TOTAL = 8 * GIB
NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia0", "nvidia1")
GPU = {"name": "G", "total": TOTAL, "reserved": 0, "context": 0}


def gpu(index: int) -> dict[str, Any]:
    return GPU | {"index": index, "minor": index, "uuid": f"GPU-{index}"}


class Outcome:
    """What became of a container: REFUSAL a sentence or "", SPEC its config.json as it is now, LIMITS of its grant in
    bytes by UUID, None where there is no grant.
    """

    def __init__(self, refusal: str, spec: dict[str, Any], limits: dict[str, int] | None) -> None:
        self.refusal, self.spec, self.limits = refusal, spec, limits


class Prepared:
    """Two GPUs of 8 GiB in FOLDER, or what MORE has of an inventory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.bundle = folder / "bundle"
        (self.bundle / "rootfs").mkdir(parents=True)
        subprocess.run(["/usr/sbin/runc", "spec", "-b", self.bundle], check=True)
        self.usual: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        for name in ("driver", "ours", "dev"):
            (folder / name).mkdir()
        for name in (*OURS, "runai-hook", "runai-agent"):
            (folder / "ours" / name).touch()
            (folder / "driver" / name).touch()
        for name in NODES:
            (folder / "dev" / name).touch()
        self.configure()
        self.inventory = Inventory(
            {
                "driver": "580.1",
                "gpus": [gpu(0), gpu(1)],
                "libraries": [
                    {"path": f"{folder}/driver/{name}", "names": [name], "capability": "compute"} for name in OURS
                ],
                "programs": [],
                "ours": {name: f"{folder}/ours/{name}" for name in OURS},
            }
            | more
        )
        monkeypatch.setattr(module, "read_inventory", lambda _: self.inventory)

    def configure(self, **more: Any) -> None:
        ours = str(self.folder / "ours")
        values = {"runtime": "/usr/sbin/runc", "hook": f"{ours}/runai-hook", "libvgpu": ours} | more
        values |= {"state": str(self.folder / "s"), "driver": {"devices": str(self.folder / "dev")}}
        self.config.write_text(json.dumps({"enforcement": "interposer"} | values))

    def create(self, spec: Any, container: str = "one") -> Outcome:
        """The container, as far as the low-level runtime; its grant is taken away again."""
        path = self.bundle / "config.json"
        text = json.dumps(spec).encode()
        path.write_bytes(text)
        line = CommandLine(["create", "--bundle", str(self.bundle), container])
        refusal, limits = "", None
        try:
            module.prepare(line, str(self.config), str(path), text, "/usr/sbin/runc")
        except RefusalError as error:
            refusal = str(error)
            assert path.read_bytes() == text
        grant = self.folder / "s" / container
        if (grant / "limits").exists():
            lines = [line.split() for line in (grant / "limits").read_text().splitlines()]
            limits = {uuid: int(size) for uuid, size, _ in lines}
            remove_grant(str(grant))
        assert bool(refusal and limits) is False
        assert not (self.folder / "s").exists() or grants_in(self.folder / "s") == []
        return Outcome(refusal, json.loads(path.read_bytes()), limits)
