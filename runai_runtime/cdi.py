"""The host's CDI specifications: which of them is for which GPU. Read with the scan (scan.py), and cached with it.

As engines do it (cncf-tags/container-device-interface): all .json and .yaml files of the folders count. Of two with
the same device the one in the later folder wins; of two in one folder nobody can say which is meant, and none is taken.
"""

from __future__ import annotations

import os
from typing import Any

from runai_runtime.cdi_spec import LARGEST, FormatError, read_spec
from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.inventory import stamp
from runai_runtime.shim import read_regular

KIND = "nvidia.com/gpu"
ENDINGS = (".json", ".yaml")
MOST_FILES = 1000  # of a folder
LONGEST = 255  # characters of a path in a sentence


class Found:
    """What the folders hold: devices by name, with the place of their folder and their file; for each file the edits
    that all of its devices have; what was left out, in sentences; and what all of it was made from, with stamps.
    """

    def __init__(self) -> None:
        self.devices: dict[str, tuple[int, str, dict[str, Any]]] = {}
        self.common: dict[str, dict[str, Any]] = {}
        self.conflicts: dict[str, str] = {}
        self.faults: list[str] = []
        self.stamps: dict[str, list[int]] = {}

    def add_folder(self, place: int, folder: str) -> None:
        self.stamps[folder] = stamp(folder)  # first: what changes from here on is seen at the next look
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return
        except OSError as error:
            self.faults.append(f"the folder {quoted(folder, LONGEST)} can't be read: {reason(error)}")
            return
        files = [name for name in names if name.endswith(ENDINGS)]
        if len(files) > MOST_FILES:
            self.faults.append(f"{quoted(folder, LONGEST)} has {len(files)} files, and {MOST_FILES} of them are read")
        for name in files[:MOST_FILES]:
            self.add_file(place, os.path.join(folder, name))

    def add_file(self, place: int, path: str) -> None:
        self.stamps[path] = stamp(path)
        try:
            spec = read_spec(path, read_regular(path, LARGEST))
        except OSError as error:
            self.faults.append(f"{quoted(path, LONGEST)} can't be read: {reason(error)}")
        except RefusalError as refusal:
            self.faults.append(str(refusal))
        except FormatError as error:
            self.faults.append(f"{quoted(path, LONGEST)} is no CDI specification: {error}")
        else:
            if spec["kind"] == KIND:
                self.add_spec(place, path, spec)

    def add_spec(self, place: int, path: str, spec: dict[str, Any]) -> None:
        self.common[path] = spec.get("containerEdits", {})
        for device in spec["devices"]:
            name = device["name"]
            before = self.devices.get(name)
            if before and before[0] == place:
                self.conflicts[name] = (
                    f"both {quoted(before[1], LONGEST)} and {quoted(path, LONGEST)} have the device {quoted(name)}"
                )
            self.devices[name] = (place, path, device["containerEdits"])

    def device_of(self, gpu: dict[str, Any]) -> dict[str, Any] | None:
        """By the names that nvidia-ctk gives a GPU: its UUID, its index, or both in words."""
        for name in (gpu["uuid"], str(gpu["index"]), f"gpu{gpu['index']}"):
            if name in self.devices and name not in self.conflicts:
                _, path, edits = self.devices[name]
                return {"name": name, "file": path, "edits": edits}
        return None


def read_folders(folders: list[str], gpus: list[dict[str, Any]]) -> dict[str, Any]:
    """For the cache: the files that are specifications for GPUs, the edits for each of GPUS, by UUID, and those that
    its file has for all ("common", by path).
    """
    found = Found()
    for place, folder in enumerate(folders):
        found.add_folder(place, folder)
    devices = {gpu["uuid"]: device for gpu in gpus if (device := found.device_of(gpu))}
    files = {device["file"] for device in devices.values()}
    return {
        "folders": folders,
        "stamps": found.stamps,
        "files": list(found.common),
        "common": {path: found.common[path] for path in files},
        "gpus": devices,
        "faults": found.faults + sorted(found.conflicts.values()),
    }
