"""What is read from a container's config.json (OCI runtime specification). Any part may be missing or of a wrong type:
the low-level runtime judges the rest, here only what matters is looked at.
"""

from __future__ import annotations

import os

from runai_runtime.errors import RefusalError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from collections.abc import Iterable
    from typing import Any

    Spec = dict[str, Any]


DEVICE = "/dev/nvidia"
CAPABILITY = "/dev/nvidia-caps/nvidia-cap"
NVIDIA = 195  # the major number of GPUs (Documentation/admin-guide/devices.txt), minors as in the path
FIRST_CONTROL = 254  # nvidia-modeset, nvidiactl


def section(parent: object, key: str) -> dict[str, Any]:
    """The object at KEY, empty if there is none."""
    value = parent.get(key) if isinstance(parent, dict) else None
    return value if isinstance(value, dict) else {}


def entries(parent: object, key: str) -> list[dict[str, Any]]:
    """The objects in the list at KEY."""
    value = parent.get(key) if isinstance(parent, dict) else None
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def environment_of(spec: Spec) -> dict[str, str]:
    """The process's environment; of a name that is set twice, the last."""
    pairs = section(spec, "process").get("env")
    if not isinstance(pairs, list):
        return {}
    split = (pair.partition("=") for pair in pairs if isinstance(pair, str))
    return {name: value for name, equals, value in split if equals}


def cwd(spec: Spec) -> str:
    value = section(spec, "process").get("cwd")
    return value if isinstance(value, str) and value.startswith("/") else "/"


def program(spec: Spec) -> str:
    """What the container's first process runs; "" if that can't be told."""
    arguments = section(spec, "process").get("args")
    first = arguments[0] if isinstance(arguments, list) and arguments else ""
    return first if isinstance(first, str) else ""


def annotations_of(spec: Spec) -> dict[str, str]:
    return {key: value for key, value in section(spec, "annotations").items() if isinstance(value, str)}


def device_minors(spec: Spec) -> list[int]:
    """Minor numbers of the GPUs whose device nodes the spec grants, as devices or as mounts."""
    paths = [device.get("path") for device in entries(section(spec, "linux"), "devices")]
    paths += [mount.get("destination") for mount in entries(spec, "mounts")]
    numbers = [path[len(DEVICE) :] for path in paths if isinstance(path, str) and path.startswith(DEVICE)]
    named = {int(number) for number in numbers if number.isascii() and number.isdigit() and len(number) < 6}
    return sorted(named | renamed_minors(spec))


def cap_minors(spec: Spec, major: int) -> set[int]:
    """Minor numbers of the capability nodes (MIG) that the spec grants likewise; by their numbers, those of MAJOR."""
    nodes = entries(section(spec, "linux"), "devices")
    paths = [node.get("path") for node in nodes] + [mount.get("destination") for mount in entries(spec, "mounts")]
    numbers = [path[len(CAPABILITY) :] for path in paths if isinstance(path, str) and path.startswith(CAPABILITY)]
    named = {int(number) for number in numbers if number.isascii() and number.isdigit() and len(number) < 8}
    minors = [node.get("minor") for node in nodes if node.get("type") in ("c", "u") and node.get("major") == major != 0]
    return named | {minor for minor in minors if isinstance(minor, int)}


def renamed_minors(spec: Spec) -> set[int]:
    """Those by the nodes' own numbers: `--device /dev/nvidia0:/dev/x` gives a GPU under another name."""
    nodes = entries(section(spec, "linux"), "devices")
    minors = [node.get("minor") for node in nodes if node.get("type") in ("c", "u") and node.get("major") == NVIDIA]
    return {minor for minor in minors if isinstance(minor, int) and 0 <= minor < FIRST_CONTROL}


def mounted_beside(spec: Spec, beginnings: Iterable[str]) -> list[str]:
    """The folders into which the spec mounts files whose names begin with one of BEGINNINGS."""
    targets = [mount.get("destination") for mount in entries(spec, "mounts")]
    split = [os.path.split(target) for target in targets if isinstance(target, str)]
    return list(dict.fromkeys(folder for folder, name in split if name.startswith(tuple(beginnings))))


def has_nvidia_hook(spec: Spec) -> bool:
    """Whether NVIDIA's toolkit injects GPUs by a hook of this spec."""
    hooks = section(spec, "hooks")
    paths = [hook.get("path") for stage in hooks for hook in entries(hooks, stage)]
    return any(isinstance(path, str) and "nvidia-container" in path.rpartition("/")[2] for path in paths)


def may_mount(spec: Spec) -> bool:
    """Whether the container's processes can have CAP_SYS_ADMIN over the host's mounts."""
    bounding = section(section(spec, "process"), "capabilities").get("bounding")
    return isinstance(bounding, list) and "CAP_SYS_ADMIN" in bounding


def odd_key(spec: Spec) -> str:
    """A key that the low-level runtime, whose JSON reader takes no notice of case, reads as one that matters; or ""."""
    matters = {"process", "annotations", "linux", "hooks", "mounts", "root"}
    for key in spec:
        if key.lower() in matters and key not in matters:
            return key
    return next((key for key in section(spec, "process") if key.lower() == "env" and key != "env"), "")


def rootfs(spec: Spec, bundle: str) -> str:
    path = section(spec, "root").get("path")
    if not isinstance(path, str) or not path or "\0" in path or any("\ud800" <= c <= "\udfff" for c in path):
        raise RefusalError("the container's config.json names no root file system; see who made the bundle")
    return os.path.realpath(os.path.join(bundle, path))
