"""Edits of config.json: a list of small objects, planned first, then applied to the spec in one place.

Applying an edit to a spec that has it already changes nothing.
"""

from __future__ import annotations

import os
import stat

from runai_runtime.errors import RefusalError
from runai_runtime.spec import entries, section

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from typing import Any, Protocol

    from runai_runtime.spec import Spec

    class Edit(Protocol):
        """One change of a spec."""

        def apply(self, spec: Spec) -> None: ...


# runc starts a hook without "env" with its own environment, crun with the container's: never leave it out.
HOOK_ENVIRONMENT = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


class AddHook:
    """runai-hook at one stage, after the hooks that are there."""

    def __init__(self, stage: str, program: str, grant: str) -> None:
        self.stage = stage
        self.hook = hook(program, stage, grant)

    def apply(self, spec: Spec) -> None:
        hooks = child(spec, "hooks")
        if isinstance(hooks.get(self.stage), list):
            # If the bundle is used a second time, the first container's is there; NVIDIA's may have come behind it.
            hooks[self.stage] = [other for other in hooks[self.stage] if not is_ours(other, self.stage)]
        add(hooks, self.stage, self.hook)


GUARD = "guard"


class AddGuard:
    """A hook that stops the container, until RemoveGuards takes it away."""

    def __init__(self, stage: str, program: str, folder: str) -> None:
        self.stage = stage
        self.hook = hook(program, GUARD, folder)

    def apply(self, spec: Spec) -> None:
        add(child(spec, "hooks"), self.stage, self.hook)


class RemoveGuards:
    """What AddGuard put in, at all stages."""

    def apply(self, spec: Spec) -> None:
        hooks = section(spec, "hooks")
        for stage, those in hooks.items():
            if isinstance(those, list):
                hooks[stage] = [one for one in those if not is_guard(one)]


def is_guard(entry: object) -> bool:
    return is_ours(entry, GUARD)


def is_ours(entry: object, word: str) -> bool:
    """Whether a hook is one of ours, for the stage WORD of any container."""
    args = entry.get("args") if isinstance(entry, dict) else None
    return isinstance(args, list) and args[:2] == ["runai-hook", word]


def hook(program: str, word: str, path: str) -> dict[str, Any]:
    # No "timeout": the hook ends by itself in time (hook/main.c says why).
    return {"path": program, "args": ["runai-hook", word, path], "env": HOOK_ENVIRONMENT}


class AddDevice:
    """A device node that is made in the container, and the cgroup's leave to use it."""

    def __init__(self, path: str, status: os.stat_result, target: str) -> None:
        self.major, self.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self.device = {
            "path": target,
            "type": "c",
            "major": self.major,
            "minor": self.minor,
            "fileMode": stat.S_IMODE(status.st_mode),
            "uid": 0,
            "gid": 0,
        }
        self.source = path

    def apply(self, spec: Spec) -> None:
        linux = child(spec, "linux")
        if all(device.get("path") != self.device["path"] for device in entries(linux, "devices")):
            add(linux, "devices", self.device)
        rule = {"allow": True, "type": "c", "major": self.major, "minor": self.minor, "access": "rw"}
        add(child(linux, "resources"), "devices", rule)


def child(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at KEY, made if it is missing or null."""
    if parent.get(key) is None:
        parent[key] = {}
    value = parent[key]
    if not isinstance(value, dict):
        raise RefusalError(f'the "{key}" of the container\'s config.json is no object; see who made the bundle')
    return value


def add(parent: dict[str, Any], key: str, entry: object) -> None:
    """ENTRY at the end of the list at KEY (which may be missing or null), unless it is in it."""
    if parent.get(key) is None:
        parent[key] = []
    if not isinstance(parent[key], list):
        raise RefusalError(f'the "{key}" of the container\'s config.json is no list; see who made the bundle')
    if entry not in parent[key]:
        parent[key].append(entry)
