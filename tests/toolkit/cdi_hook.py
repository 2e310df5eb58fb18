"""nvidia-cdi-hook: links, a drop-in for a driver of the image's own, and the loader's cache, in a container's root."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIGURATION = "etc/ld.so.conf"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--link", action="append", default=[])
    parser.add_argument("--folder", action="append", default=[])
    parser.add_argument("--host-driver-version", default="")
    parser.add_argument("--cuda-compat-container-root", default="/usr/local/cuda/compat")
    options = parser.parse_args()
    root = rootfs(json.load(sys.stdin))
    if options.command == "create-symlinks":
        for link in options.link:
            create_link(root, *link.split("::"))
    elif options.command == "enable-cuda-compat":
        enable_compat(root, options.cuda_compat_container_root)
    elif options.command == "update-ldcache":
        update_cache(root, options.folder)


def rootfs(state: dict[str, str]) -> Path:
    bundle = Path(state["bundle"])
    return Path(bundle, json.loads((bundle / "config.json").read_text())["root"]["path"])


def create_link(root: Path, target: str, link: str) -> None:
    path = root / link.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.exists():
        path.unlink()
    path.symlink_to(target)


def enable_compat(root: Path, folder: str) -> None:
    if list((root / folder.lstrip("/")).glob("libcuda.so.*.*")):
        add_folders(root, "00-compat-", [folder])


def update_cache(root: Path, folders: list[str]) -> None:
    if folders:
        add_folders(root, "00-nvcr-", folders)
    subprocess.run(["/sbin/ldconfig", "-r", root, "-C", "/etc/ld.so.cache"], check=True, stderr=subprocess.PIPE)


def add_folders(root: Path, prefix: str, folders: list[str]) -> None:
    """A drop-in of ld.so.conf, which is made to read its drop-ins."""
    (root / "etc/ld.so.conf.d").mkdir(parents=True, exist_ok=True)
    if not (root / CONFIGURATION).exists():
        (root / CONFIGURATION).write_text("include /etc/ld.so.conf.d/*.conf\n")
    with tempfile.NamedTemporaryFile(
        "w", prefix=prefix, suffix=".conf", dir=root / "etc/ld.so.conf.d", delete=False
    ) as file:
        file.write("".join(f"{folder}\n" for folder in folders))
        Path(file.name).chmod(0o644)
