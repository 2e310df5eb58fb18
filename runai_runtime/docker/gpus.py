"""What docker's --gpus says, for a container whose GPUs are not docker's matter but ours.

As docker/cli reads it (opts/gpus.go): fields with commas, quoted as in CSV.
"""

from __future__ import annotations

import csv

from runai_runtime.errors import RefusalError, quoted

HOW = "write a count, all, or device= with indices or UUIDs"


class Gpus:
    """wish: as RUNAI_GPUS has it. capabilities: as NVIDIA_DRIVER_CAPABILITIES has them, "" where none are named."""

    __slots__ = ("capabilities", "wish")

    def __init__(self, text: str) -> None:
        """Raise RefusalError for what docker would refuse, and for options of NVIDIA's own."""
        fields = read_fields(text)
        unknown = sorted(set(fields) - {"capabilities", "count", "device", "driver"})
        if unknown:
            raise RefusalError(f"--gpus is {quoted(text)}, and {quoted(unknown[0])} has no meaning here; {HOW}")
        if fields.get("driver", "nvidia") != "nvidia":
            raise RefusalError(f"--gpus is {quoted(text)}; a share is of a GPU of NVIDIA's; {HOW}")
        if "count" in fields and "device" in fields:
            raise RefusalError(f"--gpus is {quoted(text)}, a count and devices as well; {HOW}")
        self.wish = f"device={fields['device']}" if "device" in fields else count_of(fields.get("count", "1"), text)
        words = fields.get("capabilities", "").split(",")
        self.capabilities = ",".join(word for word in words if word not in ("", "gpu"))


def read_fields(text: str) -> dict[str, str]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise RefusalError(f"--gpus is {quoted(text)}, which is no list of fields ({error}); {HOW}") from error
    fields: dict[str, str] = {}
    for field in rows[0] if rows else []:
        key, has_value, value = field.partition("=")
        if not has_value and "device" in fields:  # device=0,1 without the inner quotes that docker wants
            fields["device"] += f",{key}"
            continue
        key, value = (key, value) if has_value else ("count", key)
        if key in fields:
            raise RefusalError(f"--gpus is {quoted(text)}, which says {quoted(key)} twice; {HOW}")
        fields[key] = value
    return fields


def count_of(count: str, text: str) -> str:
    if count in ("all", "-1"):
        return "all"
    if not (count.isascii() and count.isdigit()):
        raise RefusalError(f"--gpus is {quoted(text)}, and {quoted(count)} is no count; {HOW}")
    return count
