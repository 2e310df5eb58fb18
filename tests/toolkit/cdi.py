"""A CDI specification of a simulated GPU host, as `nvidia-ctk cdi generate` writes it, and what it does to a spec."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KIND = "nvidia.com/gpu"
VERSION = "580.159.04"

LIBRARY = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
# A simulated node is a regular file: it can't be among the specification's deviceNodes.
NODE = ["nosuid", "noexec", "rbind", "rprivate"]


def specification(driver: dict[str, str], folder: str, hook: str, compat: str = "") -> dict[str, Any]:
    """For DRIVER, which names the host's folders ("lib", "bin", "dev") and its GPUs' nodes in NVML's order. Its
    libraries come to FOLDER in the container; HOOK is nvidia-cdi-hook. COMPAT is where images have a driver of their
    own, "" for the usual place.
    """
    files = [path for path in sorted(Path(driver["lib"]).iterdir()) if not path.is_symlink()]
    mounts = [mount(path, f"{folder}/{path.name}", LIBRARY) for path in files]
    mounts += [mount(path, f"/usr/bin/{path.name}", LIBRARY) for path in sorted(Path(driver["bin"]).iterdir())]
    control = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
    mounts += [mount(Path(driver["dev"], name), f"/dev/{name}", NODE) for name in control]
    nodes = enumerate(driver["nodes"].split())
    gpus = {f"{index}": [mount(Path(driver["dev"], node), f"/dev/{node}", NODE)] for index, node in nodes}
    gpus["all"] = [one for those in gpus.values() for one in those]
    compat_options = [f"--cuda-compat-container-root={compat}"] if compat else []
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": [{"name": name, "containerEdits": {"mounts": those}} for name, those in gpus.items()],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "mounts": mounts,
            "hooks": [
                create(hook, "create-symlinks", "--link", f"libcuda.so.1::{folder}/libcuda.so"),
                create(hook, "enable-cuda-compat", f"--host-driver-version={VERSION}", *compat_options),
                create(hook, "update-ldcache", "--folder", folder),
            ],
        },
    }


def with_more(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A specification, with what else the format has: edits of each kind. A hook leaves a line in FOLDER/trace, and a
    folder stands for /dev/dri.
    """
    hook, door = folder / "hook", folder / "dri"
    hook.write_text(f'#!/bin/sh\ncat >/dev/null\necho "$*" >>{folder}/trace\n')
    hook.chmod(0o755)
    door.mkdir()
    (door / "card0").touch()
    values = json.loads(json.dumps(values)) | {"cdiVersion": "0.7.0"}
    edits = values["containerEdits"]
    edits["env"].append("FROM_CDI=all")
    edits["hooks"].append({"hookName": "createContainer", "path": str(hook), "args": ["hook", "traced"], "timeout": 9})
    edits["additionalGids"] = [0, 4242]
    for device in values["devices"]:
        of_gpu = device["containerEdits"]
        of_gpu["env"] = [f"FROM_CDI=device {device['name']}"]
        of_gpu["deviceNodes"] = [{"path": "/dev/from-cdi", "hostPath": "/dev/fuse", "permissions": "r", "gid": 7}]
        of_gpu["mounts"].append({"hostPath": str(door), "containerPath": "/dev/dri", "options": ["ro", "rbind"]})
    return values


def mount(source: Path, target: str, options: list[str]) -> dict[str, Any]:
    return {"hostPath": str(source), "containerPath": target, "options": options}


def create(hook: str, *arguments: str) -> dict[str, Any]:
    return {"hookName": "createContainer", "path": hook, "args": ["nvidia-cdi-hook", *arguments], "env": ["DEBUG=0"]}


def apply(specification: dict[str, Any], devices: Iterable[str], spec: dict[str, Any]) -> None:
    """Edit SPEC, an OCI spec, as an engine does that is asked for DEVICES of the specification."""
    named = {device["name"]: device["containerEdits"] for device in specification["devices"]}
    for edits in (*(named[name] for name in devices), specification["containerEdits"]):
        names = [pair.partition("=")[0] + "=" for pair in edits.get("env", [])]
        kept = [pair for pair in spec["process"].get("env", []) if not pair.startswith(tuple(names) or ("\0",))]
        spec["process"]["env"] = kept + edits.get("env", [])
        for one in edits.get("mounts", []):
            kept = [other for other in spec["mounts"] if other["destination"] != one["containerPath"]]
            source, target = one["hostPath"], one["containerPath"]
            added = {"destination": target, "type": "bind", "source": source, "options": one["options"]}
            spec["mounts"] = [*kept, added]
        for one in edits.get("hooks", []):
            hooks = spec.setdefault("hooks", {}).setdefault(one["hookName"], [])
            hooks.append({key: one[key] for key in ("path", "args", "env")})
    spec["mounts"].sort(key=lambda entry: os.path.normpath(entry["destination"]).count("/"))
