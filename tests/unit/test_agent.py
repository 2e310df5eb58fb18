"""The shim's side of the agent: the edits that go with it, its figures, its start."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.agent import Agent, CloseOtherDoors, host_fault, params_of, socket_fault
from runai_runtime.errors import RefusalError
from runai_runtime.host import Host, check
from runai_runtime.inventory import Inventory

DENIED = [
    {"allow": False, "type": "c", "major": 226, "access": "rwm"},
    {"allow": False, "type": "c", "major": 195, "minor": 254, "access": "rwm"},
]


def device(path: str, major: int, minor: int) -> dict[str, Any]:
    return {"path": path, "type": "c", "major": major, "minor": minor}


def test_other_doors_are_taken_out() -> None:
    ours = device("/dev/nvidia0", 195, 0)
    everything = {"allow": True, "access": "rwm"}
    leave = {"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rw"}
    everything_of_nvidia = {"allow": True, "type": "c", "major": 195, "access": "rwm"}
    others = [device("/dev/dri/card0", 226, 0), device("/dev/x", 226, 128)]
    others += [device("/m", 195, 254), device("/dev/hidden", 195, 1)]
    kept = {"destination": "/data", "source": "/dev/driver", "type": "bind"}
    spec = {
        "linux": {
            "devices": [ours, *others],
            "resources": {"devices": [everything, leave, everything_of_nvidia, {**leave, "major": 226}]},
        },
        "mounts": [kept, {"destination": "/dev/dri", "source": "/x"}, {"destination": "/y", "source": "/dev/dri"}],
    }
    doors = CloseOtherDoors([0])
    doors.apply(spec)
    once = copy.deepcopy(spec)
    assert spec["linux"] == {"devices": [ours], "resources": {"devices": [everything, leave, *DENIED]}}
    assert spec["mounts"] == [kept]
    assert doors.removed == ["/dev/dri/card0", "/dev/x", "/m", "/dev/hidden", "/dev/dri", "/y", "c 195:*", "c 226:0"]
    doors.apply(spec)
    assert spec == once


@pytest.mark.parametrize(
    ("driver", "size"), [("595.45.04", 128), ("580.159.04", 128), ("545.23.06", 128), ("535.288.01", 120)]
)
def test_the_parameters_of_a_driver(driver: str, size: int) -> None:
    assert params_of(driver) == size


def inventory(driver: str = "580.1", **more: Any) -> Inventory:
    return Inventory({"driver": driver, "gpus": [], "libraries": [], "programs": [], "ours": {}, **more})


@pytest.mark.parametrize("driver", ["596.1", "600.10", "530.41.03", "525.60.13", "390.157", "", "x.1", "9" * 5000])
def test_a_driver_that_it_does_not_know(driver: str) -> None:
    """A newer one may have other layouts; before 535 a request for memory has a size that the filter doesn't hold."""
    assert "doesn't know the driver" in host_fault(inventory(driver, agent={"/r": ""}), "/r")


def test_a_runtime_that_can_or_can_not() -> None:
    looked_at = inventory(agent={"/r": "", "/s": "it is too old"})
    assert host_fault(looked_at, "/r") == ""
    assert host_fault(looked_at, "/s") == "it is too old"
    assert "was not looked at" in host_fault(looked_at, "/t")


def test_a_path_too_long_for_a_socket() -> None:
    assert socket_fault("/" + "x" * 100) == ""
    assert "has 108 bytes" in socket_fault("/" + "x" * 101)


def test_the_configuration() -> None:
    values = {"runtime": "/r", "hook": "/opt/runai-hook", "libvgpu": "/l"}
    assert "enforcement" in check(values | {"enforcement": "driver"})
    assert "agent" in check(values | {"agent": "runai-agent"})
    assert check(values | {"enforcement": "agent"}) == ""
    assert (Host("", values).enforcement, Host("", values).agent) == ("auto", "/opt/runai-agent")


@pytest.mark.parametrize("status", [0, 1])
def test_start(tmp_path: Path, status: int) -> None:
    """Descriptors 3 and 4 are the sockets, whatever numbers they had before. It is waited for until it has detached."""
    program = tmp_path / "runai-agent"
    program.write_text(f'#!/bin/sh\nls -l /proc/$$/fd > "$1/seen"\n[ "$2" = detached ] && exit {status}\n')
    program.chmod(0o755)
    values = {"runtime": "/r", "hook": "/h", "libvgpu": "/l", "agent": str(program)}
    agent = Agent(Host("", values), inventory(), "/r", [], str(tmp_path))
    agent.put(str(tmp_path), None)
    names = {number: os.readlink(f"/proc/self/fd/{socket.fileno()}") for number, socket in enumerate(agent.sockets, 3)}
    if status:
        with pytest.raises(RefusalError, match="can't be started"):
            agent.start()
    else:
        agent.start()
    seen = (tmp_path / "seen").read_text()
    for number, name in names.items():
        assert f" {number} -> {name}\n" in seen


def test_the_flags_that_the_runtime_takes(tmp_path: Path) -> None:
    (tmp_path / "runai-agent").touch()
    host = Host("", {"runtime": "/r", "hook": str(tmp_path / "runai-hook"), "libvgpu": "/l"})
    flags = {"/r": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}
    for runtime, expected in (("/r", flags["/r"]), ("/s", ())):
        agent = Agent(host, inventory(flags=flags), runtime, [], str(tmp_path))
        assert agent.hold.flags == expected
