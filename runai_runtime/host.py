"""The host's configuration: the one file on which every path hangs."""

from __future__ import annotations

import json
import os

from runai_runtime.errors import RefusalError, reason
from runai_runtime.request import Amount

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from typing import Any

DEFAULT_PATH = "/etc/runai-runtime/config.json"
MOST_SECONDS = 86400  # that a create may wait for room


class Host:
    """A configuration file, read. Paths are absolute."""

    __slots__ = (
        *("agent", "allow_sys_admin", "devices", "driver", "enforcement", "fitted", "hook", "libvgpu", "overcommit"),
        *("path", "placement", "reserve", "runtime", "runtimes", "state", "wait"),
    )

    def __init__(self, path: str, values: dict[str, Any]) -> None:
        self.path = path
        self.runtime: str = values["runtime"]
        self.runtimes: list[str] = [self.runtime, *values.get("behind_nvidia", [])]
        self.hook: str = values["hook"]
        self.libvgpu: str = values["libvgpu"]  # folder
        self.state: str = values.get("state", "/run/runai")
        self.fitted: str = values.get("fitted", os.path.join(self.state, "libvgpu"))
        self.driver: dict[str, Any] = values.get("driver", {})
        self.allow_sys_admin: bool = values.get("allow_sys_admin", False)
        self.enforcement: str = values.get("enforcement", "auto")
        self.agent: str = values.get("agent", os.path.join(os.path.dirname(self.hook), "runai-agent"))
        self.overcommit: bool = values.get("overcommit", False)
        self.placement: str = values.get("placement", "pack")
        self.reserve: str = values.get("reserve", "")  # of each GPU, as a request has it; "" for nothing
        self.wait: float = values.get("wait", 0)  # seconds
        self.devices: str = self.driver.get("devices", "/dev")


def check(values: object) -> str:
    """What is wrong with a configuration, as the end of a sentence; "" if nothing is.

    The short check of the hot path; what each key means stands in docs/architecture.md.
    """
    if not isinstance(values, dict):
        return "it is not a JSON object"
    for key in ("runtime", "hook", "libvgpu"):
        if key not in values:
            return f'it has no "{key}"'
    for key in ("runtime", "hook", "libvgpu", "state", "fitted", "agent"):
        value = values.get(key, "/")
        if not isinstance(value, str) or not os.path.isabs(value) or set(value) & {"\t", "\n"}:
            return f'its "{key}" is not an absolute path'
    for key in ("allow_sys_admin", "overcommit"):
        if not isinstance(values.get(key, False), bool):
            return f'its "{key}" is neither true nor false'
    if values.get("enforcement", "auto") not in ("auto", "agent", "interposer"):
        return 'its "enforcement" is none of "auto", "agent", "interposer"'
    behind = values.get("behind_nvidia", [])
    if not are_texts(behind) or not all(map(os.path.isabs, behind)):
        return 'its "behind_nvidia" is not a list of absolute paths'
    return check_admission(values) or check_driver(values.get("driver", {}))


def check_admission(values: dict[str, Any]) -> str:
    if values.get("placement", "pack") not in ("pack", "spread"):
        return 'its "placement" is neither "pack" nor "spread"'
    wait = values.get("wait", 0)
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait <= MOST_SECONDS:
        return f'its "wait" is no number of seconds from 0 to {MOST_SECONDS}'
    reserve = values.get("reserve", "")
    try:
        if reserve != "":
            Amount("reserve", reserve)
    except (RefusalError, AttributeError, TypeError):
        return 'its "reserve" is no amount of memory such as "1g" or "0.1"'
    return ""


def check_driver(driver: object) -> str:
    devices = driver.get("devices", "/dev") if isinstance(driver, dict) else None
    if not isinstance(driver, dict) or not isinstance(devices, str) or set(devices) & {"\t", "\n"}:
        return 'its "driver" is not as documented'
    for key in ("libraries", "programs"):
        if not are_texts(driver.get(key, [])):
            return f'its "driver"."{key}" is not a list of folders'
    return ""


def are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def read_host(path: str) -> Host:
    """Raise RefusalError when the file is missing or damaged."""
    advice = "write it anew with runai-ctl configure"
    try:
        with open(path, "rb") as file:
            values = json.loads(file.read())
    except OSError as error:
        raise RefusalError(f"the configuration {path} can't be read: {reason(error)}; {advice}") from error
    except ValueError as error:
        raise RefusalError(f"the configuration {path} is not valid JSON ({error}); {advice}") from error
    fault = check(values)
    if fault:
        raise RefusalError(f"the configuration {path} can't be used: {fault}; {advice}")
    return Host(path, values)
