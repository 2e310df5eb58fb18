"""Which GPUs NVIDIA's hook (nvidia-container-runtime-hook, as `docker run --gpus` adds it) gives to a container.

As in nvidia-container-toolkit 1.20: internal/config/image. The hook does its work when the container is there already,
so what it will do has to be read from the container's environment as it reads it.
"""

from __future__ import annotations

from runai_runtime.spec import entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runai_runtime.spec import Spec

VISIBLE = "NVIDIA_VISIBLE_DEVICES"

# Mounts of /dev/null below it name GPUs instead, where NVIDIA's configuration lets them. Where it doesn't, and the hook
# shows others than we count, those others give no memory.
DEVICES_AS_MOUNTS = "/var/run/nvidia-container-devices/"


def visible_devices(spec: Spec, environment: dict[str, str]) -> str:
    """The GPUs as RUNAI_GPUS would name them, "" for none; instances (MIG) by the same names as there."""
    words = mounted(spec) or listed(environment)
    if not words or "void" in words:
        return ""
    for word in words:
        if word in ("all", "none"):
            return word if word == "all" else ""
    return f"device={','.join(words)}"


def mounted(spec: Spec) -> list[str]:
    targets = [str(mount.get("destination")) for mount in entries(spec, "mounts") if mount.get("source") == "/dev/null"]
    below = [path[len(DEVICES_AS_MOUNTS) :] for path in targets if path.startswith(DEVICES_AS_MOUNTS)]
    return [word.strip("/") for word in below if not word.startswith(("cdi/", "imex/"))]


def listed(environment: dict[str, str]) -> list[str]:
    value = environment.get(VISIBLE)
    if value is None and environment.get("CUDA_VERSION") and not environment.get("NVIDIA_REQUIRE_CUDA"):
        value = "all"  # an image of the time before these variables
    return [word.strip() for word in (value or "").split(",") if word.strip()]
