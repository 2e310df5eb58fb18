"""The host's configuration: the one file on which every path hangs."""

from __future__ import annotations

import json
import os

from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.shim import read_regular

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from typing import Any

DEFAULT_PATH = "/etc/runai-runtime/config.json"
LARGEST = 1 << 20  # bytes of a configuration
MOST_SECONDS = 3600  # that a create may wait for room

# config.schema.json says the same at length; tests/unit/test_schema.py holds the two together.
NEEDED = ("runtime", "hook", "libvgpu")
PATHS = (*NEEDED, "state", "fitted", "agent")
SHARES = ("default_share", "largest_share", "reserve")
SWITCHES = ("allow_sys_admin", "overcommit")
CHOICES = {
    "enforcement": ("auto", "agent", "interposer"),
    "without_request": ("leave", "default", "refuse"),
    "placement": ("pack", "spread"),
}
DEVICES = "/dev"
DOORS = ("/dev/dri", "/dev/nvidia-modeset")
KEYS = frozenset(
    (*PATHS, *SHARES, *SWITCHES, *CHOICES, "behind_nvidia", "cdi_spec_dirs", "devices_let_in", "driver", "log", "wait"),
)
DRIVER_KEYS = frozenset({"devices", "libraries", "programs"})
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")  # as in CDI's SPEC.md
NO_SHARE = "0"
EVERYTHING = "1"


class Host:
    """A configuration file, read. Paths are absolute."""

    __slots__ = (
        *("agent", "allow_sys_admin", "cdi_spec_dirs", "default_share", "devices", "devices_let_in", "driver"),
        *("enforcement", "fitted", "hook", "largest_share", "libvgpu", "log", "overcommit", "path", "placement"),
        *("reserve", "runtime", "runtimes", "state", "wait", "without_request"),
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
        self.reserve: str = values.get("reserve", NO_SHARE)  # of each GPU
        self.wait: float = values.get("wait", 0)  # seconds
        self.devices: str = self.driver.get("devices", DEVICES)
        self.cdi_spec_dirs: list[str] = values.get("cdi_spec_dirs", list(CDI_FOLDERS))
        self.default_share: str = values.get("default_share", NO_SHARE)
        self.largest_share: str = values.get("largest_share", EVERYTHING)
        self.without_request: str = values.get("without_request", "leave")
        self.devices_let_in: list[str] = values.get("devices_let_in", [])
        self.log: str = values.get("log", "")


def check(values: object) -> str:
    """What is wrong with a configuration, as the end of a sentence; "" if nothing is.

    The short check of the hot path; what each key means stands in docs/configuration.md.
    """
    if not isinstance(values, dict):
        return "it is not a JSON object"
    return check_keys(values) or check_parts(values) or check_driver(values.get("driver", {})) or check_policy(values)


def check_keys(values: dict[str, Any]) -> str:
    for key in NEEDED:
        if key not in values:
            return f'it has no "{key}"'
    # A key that is misspelt is a rule of the host's that would be dropped silently.
    unknown = [key for key in values if key not in KEYS]
    return f"it has {quoted(unknown[0])}, which is no key of this version" if unknown else ""


def check_parts(values: dict[str, Any]) -> str:
    """What is on the host, and what keeps a share."""
    for key in PATHS:
        if not is_path(values.get(key, "/")):
            return f'its "{key}" is not an absolute path'
    for key in SWITCHES:
        if not isinstance(values.get(key, False), bool):
            return f'its "{key}" is neither true nor false'
    for key, choices in CHOICES.items():
        if values.get(key, choices[0]) not in choices:
            return f'its "{key}" is none of {", ".join(choices)}'
    for key in ("behind_nvidia", "cdi_spec_dirs"):
        if not are_paths(values.get(key, [])):
            return f'its "{key}" is not a list of absolute paths'
    return ""


def check_driver(driver: object) -> str:
    if not isinstance(driver, dict) or not DRIVER_KEYS.issuperset(driver):
        return 'its "driver" is not as documented'
    if not is_path(driver.get("devices", "/dev")):
        return 'its "driver"."devices" is not an absolute path'
    for key in ("libraries", "programs"):
        if not are_paths(driver.get(key, [])):
            return f'its "driver"."{key}" is not a list of absolute paths'
    return ""


def check_policy(values: dict[str, Any]) -> str:
    """What the host lets containers have."""
    for key in SHARES:
        value = values.get(key, EVERYTHING)
        if not is_share(value) and (value != NO_SHARE or key == "largest_share"):
            return f'its "{key}" is no amount such as "0.3" or "3g"'
    wait = values.get("wait", 0)
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait <= MOST_SECONDS:
        return f'its "wait" is no number of seconds from 0 to {MOST_SECONDS}'
    if values.get("without_request") == "default" and values.get("default_share", NO_SHARE) == NO_SHARE:
        return 'its "without_request" is "default", and it has no "default_share"'
    doors = values.get("devices_let_in", [])
    if not isinstance(doors, list) or any(door not in DOORS for door in doors):
        return f'its "devices_let_in" has more than {", ".join(DOORS)}'
    if values.get("log", "") != "" and not is_path(values["log"]):
        return 'its "log" is not an absolute path'
    return ""


def is_share(value: object) -> bool:
    from runai_runtime.request import Amount

    if not isinstance(value, str):
        return False
    try:
        Amount("", value)
    except RefusalError:
        return False
    return True


def is_path(value: object) -> bool:
    """Whether VALUE is an absolute path that a line of text and a system call can take."""
    return (
        isinstance(value, str)
        and value.startswith("/")
        and not any(c < " " or "\ud800" <= c <= "\udfff" for c in value)
    )


def are_paths(values: object) -> bool:
    return isinstance(values, list) and all(map(is_path, values))


def absolute(path: str) -> str:
    """PATH from the root on. Raises RefusalError for a relative one in a folder that was removed."""
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except OSError as error:
        raise RefusalError(
            f"{path} can't be found from the current folder ({reason(error)}); write its whole path"
        ) from error


def read_host(path: str) -> Host:
    """Raise RefusalError when the file is missing or damaged."""
    advice = "write it anew with runai-ctl configure"
    try:
        values = json.loads(read_regular(path, LARGEST))
    except OSError as error:
        raise RefusalError(f"the configuration {path} can't be read: {reason(error)}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise RefusalError(f"the configuration {path} is not valid JSON ({error}); {advice}") from error
    fault = check(values)
    if fault:
        raise RefusalError(f"the configuration {path} can't be used: {fault}; {advice}")
    return Host(path, values)
