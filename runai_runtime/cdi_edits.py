"""The edits of a CDI specification on a container's spec, as an engine that knows CDI makes them (the package pkg/cdi
of cncf-tags/container-device-interface, which dockerd has in it).
"""

from __future__ import annotations

import os
import stat

from runai_runtime.edits import HOOK_ENVIRONMENT, add, child
from runai_runtime.errors import quoted, reason
from runai_runtime.mps import folders_with_servers, leads_to_server
from runai_runtime.rootfs import mount_points
from runai_runtime.spec import device_minors

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from typing import Any

    from runai_runtime.inventory import Gpu, Inventory
    from runai_runtime.spec import Spec

TYPES = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}


class UnusableError(Exception):
    """Why the host's CDI specification can't put GPUs in, as a part of a sentence."""


def edits_for(inventory: Inventory, gpus: list[Gpu]) -> CdiEdits:
    """What puts GPUS in. Raises UnusableError."""
    chosen = []
    for gpu in gpus:
        device = inventory.cdi["gpus"].get(gpu.uuid)
        if device is None:
            raise UnusableError(f"it has no device for GPU {gpu.index}")
        chosen.append(device)
    common = [inventory.cdi["common"][file] for file in dict.fromkeys(device["file"] for device in chosen)]
    edits = CdiEdits([*common, *(device["edits"] for device in chosen)])
    given: Spec = {}
    edits.apply(given)
    others = set(device_minors(given)) - {gpu.minor for gpu in gpus}
    if others:
        raise UnusableError(f"it has /dev/nvidia{min(others)} for a GPU that isn't that one; make it anew")
    return edits


class CdiEdits:
    """The container edits of PARTS, objects as the format has them, one after the other. What they need is on this
    host, or UnusableError is raised: a specification may be older than the driver.
    """

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        def all_of(key: str) -> list[Any]:
            return [entry for part in parts for entry in part.get(key, [])]

        # Ours would be a request, and what is asked for is settled.
        self.variables = [variable for variable in all_of("env") if not variable.startswith("RUNAI_")]
        self.nodes = [(device_of(node), node.get("permissions") or "rwm") for node in all_of("deviceNodes")]
        servers = folders_with_servers()  # nvidia-ctk has MPS's folder mounted, with which no share could be kept
        mounts = [mount_of(mount) for mount in all_of("mounts")]
        self.mounts = [mount for mount in mounts if not leads_to_server(mount["source"], servers)]
        self.hooks = [(hook["hookName"], hook_of(hook)) for hook in all_of("hooks")]
        self.groups: list[int] = [group for group in all_of("additionalGids") if group]
        self.rdt: list[dict[str, Any]] = [part["intelRdt"] for part in parts if "intelRdt" in part]

    def apply(self, spec: Spec) -> None:
        for variable in self.variables:
            set_variable(child(spec, "process"), variable)
        for device, access in self.nodes:
            add_node(spec, device, access)
        for mount in self.mounts:
            put(spec, "mounts", mount, "destination")
        if self.mounts:
            spec["mounts"].sort(key=depth)
        for stage, hook in self.hooks:
            add(child(spec, "hooks"), stage, hook)
        for rdt in self.rdt:
            child(spec, "linux")["intelRdt"] = dict(rdt)
        for group in self.groups:
            add(child(child(spec, "process"), "user"), "additionalGids", group)

    def mount_points(self, root: str) -> list[str]:
        """What the low-level runtime makes in the image's ROOT for the mounts, and leaves there."""
        return mount_points(root, [mount["destination"] for mount in self.mounts])


def set_variable(process: dict[str, Any], variable: str) -> None:
    name = variable.partition("=")[0] + "="
    if isinstance(process.get("env"), list):
        process["env"] = [other for other in process["env"] if not (isinstance(other, str) and other.startswith(name))]
    add(process, "env", variable)


def put(parent: dict[str, Any], key: str, entry: dict[str, Any], name: str) -> None:
    """ENTRY at the end of the list at KEY, instead of those that have its NAME."""
    if isinstance(parent.get(key), list):
        parent[key] = [one for one in parent[key] if not (isinstance(one, dict) and one.get(name) == entry[name])]
    add(parent, key, entry)


def add_node(spec: Spec, device: dict[str, Any], access: str) -> None:
    linux = child(spec, "linux")
    put(linux, "devices", device, "path")
    if device["type"] in ("b", "c"):
        rule = {"allow": True, **{key: device[key] for key in ("type", "major", "minor")}, "access": access}
        add(child(linux, "resources"), "devices", rule)


def depth(mount: object) -> int:
    """By how many parts its target has: what lies in another's target is mounted after it."""
    target = mount.get("destination") if isinstance(mount, dict) else None
    return os.path.normpath(target).count("/") if isinstance(target, str) else 0


def device_of(node: dict[str, Any]) -> dict[str, Any]:
    """A node as the OCI has it: what the specification leaves out is as on the host, now, since numbers may change with
    a boot.
    """
    device: dict[str, Any] = {
        key: node[key] for key in ("path", "type", "major", "minor", "fileMode", "uid", "gid") if key in node
    }
    path = node.get("hostPath", node["path"])
    try:
        status = os.stat(path)
    except OSError as error:
        raise UnusableError(f"its device node {quoted(path)} can't be used: {reason(error)}") from error
    kind = TYPES.get(stat.S_IFMT(status.st_mode), "")
    if kind != device.setdefault("type", kind).replace("u", "c") or not kind:
        raise UnusableError(f"its device node {quoted(path)} is no such node on this host")
    if kind != "p" and not device.get("major"):
        device |= {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
    return device


def mount_of(mount: dict[str, Any]) -> dict[str, Any]:
    kind, options = mount.get("type", "bind"), mount.get("options", [])
    source = mount["hostPath"]
    if (kind == "bind" or {"bind", "rbind"} & set(options)) and not os.path.exists(source):
        raise UnusableError(f"{quoted(source)}, which it has mounted, isn't on this host")
    return {"destination": mount["containerPath"], "type": kind, "source": source, "options": list(options)}


def hook_of(hook: dict[str, Any]) -> dict[str, Any]:
    """With an environment always: without one crun takes the container's, of which the image has a say."""
    if not os.path.exists(hook["path"]):
        raise UnusableError(f"its hook {quoted(hook['path'])} isn't on this host")
    values = {key: hook[key] for key in ("path", "args", "timeout") if key in hook}
    return values | {"env": hook.get("env") or HOOK_ENVIRONMENT}
