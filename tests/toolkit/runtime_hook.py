"""nvidia-container-runtime-hook: the prestart hook of `docker run --gpus`, with what nvidia-container-cli does for it.

It enters the mount namespace of the container's first process and mounts the driver's files and nodes into its root.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.toolkit.cdi_hook import rootfs


def main(driver: dict[str, str], folder: str) -> None:
    """DRIVER names the host's folders and GPUs; its libraries come to FOLDER, the library folder of the image."""
    if sys.argv[1:] != ["prestart"]:
        return
    state = json.load(sys.stdin)
    spec = json.loads(Path(state["bundle"], "config.json").read_text())
    gpus = visible(spec, driver)
    if gpus is None:
        return
    script = "\n".join(commands(rootfs(state), driver, folder, gpus))
    namespace = f"--mount=/proc/{state['pid']}/ns/mnt"
    subprocess.run(["/usr/bin/nsenter", namespace, "/bin/sh", "-euc", script], check=True)


def visible(spec: dict[str, Any], driver: dict[str, str]) -> list[str] | None:
    """The names of the GPUs' nodes. None: this container has nothing to do with NVIDIA."""
    environment = dict(pair.split("=", 1) for pair in spec["process"]["env"])
    words = [word.strip() for word in environment.get("NVIDIA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    if not words or "void" in words:
        return None
    if words[0] == "none":
        return []
    names = driver["uuids"].split()
    nodes = driver["nodes"].split()
    if words[0] == "all":
        return nodes
    parts = dict(pair.split("=") for pair in driver["parts"].split())
    named = (parts.get(word) or nodes[names.index(word) if word in names else int(word)] for word in words)
    return list(dict.fromkeys(node for one in named for node in one.split(",")))


def commands(root: Path, driver: dict[str, str], folder: str, gpus: list[str]) -> list[str]:
    files = [(path, f"{folder}/{path.name}") for path in sorted(Path(driver["lib"]).iterdir()) if not path.is_symlink()]
    files += [(path, f"/usr/bin/{path.name}") for path in sorted(Path(driver["bin"]).iterdir())]
    nodes = [(Path(driver["dev"], name), f"/dev/{name}") for name in ("nvidiactl", "nvidia-uvm", *gpus)]
    lines = []
    for source, target in files + nodes:
        inside = shlex.quote(f"{root}{target}")
        lines += [f"mkdir -p $(dirname {inside})", f": >> {inside}", f"mount --bind {source} {inside}"]
        if (source, target) in files:
            lines.append(f"mount -o remount,bind,ro,nosuid,nodev {inside}")
    return [*lines, f"/sbin/ldconfig -r {shlex.quote(str(root))} 2>/dev/null"]
