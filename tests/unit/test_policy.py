"""What the host's configuration lets containers have, and what it says of them."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.agent import CloseOtherDoors
from runai_runtime.hostlog import note, note_error
from runai_runtime.shim import is_looked_into
from tests.unit.prepared import GIB, TOTAL, Prepared

NODE = {"linux": {"devices": [{"path": "/dev/nvidia1", "type": "c", "major": 195, "minor": 1}]}}
RENAMED = {"linux": {"devices": [{"path": "/dev/x", "type": "c", "major": 195, "minor": 1}]}}
MOUNT = {"mounts": [{"destination": "/dev/nvidia1", "source": "/sim/nvidia1"}]}
HOOK: dict[str, Any] = {
    "hooks": {"prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook"}]},
    "process": {"env": ["NVIDIA_VISIBLE_DEVICES=1"]},
}
GIVEN: dict[str, dict[str, Any]] = {"node": NODE, "renamed": RENAMED, "mount": MOUNT, "hook": HOOK}
NOT_GIVEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "an image's ENV": {"process": {"env": ["NVIDIA_VISIBLE_DEVICES=all"]}},
    "a hook with nothing to show": {"hooks": HOOK["hooks"], "process": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}},
    "control nodes": {"linux": {"devices": [{"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255}]}},
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    return Prepared(tmp_path, monkeypatch)


def container(host: Prepared, more: dict[str, Any], *env: str) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(host.usual)
    for key, value in copy.deepcopy(more).items():
        spec[key] = spec.get(key, {}) | value if isinstance(value, dict) else value
    spec["process"]["env"] += env
    return spec


@pytest.mark.parametrize("given", GIVEN)
def test_a_gpu_without_a_request(host: Prepared, given: str) -> None:
    spec = container(host, GIVEN[given])
    left = host.create(spec)
    assert (left.refusal, left.limits, left.spec) == ("", None, spec)
    host.configure(without_request="default", default_share="2g")
    assert host.create(spec).limits == {"GPU-1": 2 * GIB}
    host.configure(without_request="refuse", default_share="2g")
    assert "asks for no share" in host.create(spec).refusal


@pytest.mark.parametrize("given", GIVEN)
def test_the_shim_looks_at_who_is_given_a_gpu(host: Prepared, given: str) -> None:
    for separators in ((",", ":"), None):
        text = json.dumps(container(host, GIVEN[given]), separators=separators).encode()
        assert is_looked_into(text, "", "")
    assert not is_looked_into(json.dumps(host.usual).encode(), "", "")


@pytest.mark.parametrize("without", ["default", "refuse"])
@pytest.mark.parametrize("name", NOT_GIVEN)
def test_no_gpu_and_no_request(host: Prepared, name: str, without: str) -> None:
    host.configure(without_request=without, default_share="2g")
    spec = container(host, NOT_GIVEN[name])
    left = host.create(spec)
    assert (left.refusal, left.limits, left.spec) == ("", None, spec)


def test_no_gpu_needs_no_configuration(host: Prepared) -> None:
    host.config.write_text("{")
    assert host.create(container(host, {}, "RUNAI_JOB=1")).refusal == ""
    assert "not valid JSON" in host.create(container(host, NODE)).refusal


def test_gpus_and_no_memory(host: Prepared) -> None:
    spec = container(host, {}, "RUNAI_GPUS=2")
    assert "no share of their memory" in host.create(spec).refusal
    host.configure(default_share="25%")
    assert host.create(spec).limits == {"GPU-0": TOTAL // 4, "GPU-1": TOTAL // 4}
    host.configure(default_share="99g")
    assert host.create(spec).refusal.startswith(f'"default_share" of {host.config} is "99g"')


@pytest.mark.parametrize(
    ("largest", "asked", "limit"),
    [
        ("2g", "2g", 2 * GIB),
        ("2g", "25%", 2 * GIB),
        ("2g", "2049m", 0),
        ("0.25", "3g", 0),
        ("0.25", "1", 0),
        ("0.1", "0.1", TOTAL // 10 // (1 << 20) * (1 << 20)),
        ("99g", "1", TOTAL),
    ],
)
def test_the_largest_share(host: Prepared, largest: str, asked: str, limit: int) -> None:
    host.configure(largest_share=largest)
    done = host.create(container(host, {}, f"RUNAI_GPU_MEMORY={asked}"))
    assert done.limits == ({"GPU-0": limit} if limit else None)
    assert ('"largest_share"' in done.refusal) is not bool(limit)


def test_a_limit_above_the_largest(host: Prepared) -> None:
    host.configure(largest_share="2g")
    spec = container(host, {}, "RUNAI_GPU_MEMORY_REQUEST=1g", "RUNAI_GPU_MEMORY_LIMIT=4g")
    assert host.create(spec).refusal.startswith('RUNAI_GPU_MEMORY_LIMIT is "4g", 4096 MiB of GPU 0')


def test_guards_of_a_container_without_a_gpu_go(host: Prepared) -> None:
    guard = {"path": "/hook", "args": ["runai-hook", "guard", "/folder"], "env": []}
    done = host.create(container(host, {"hooks": {"prestart": [guard]}}))
    assert done.spec["hooks"] == {"prestart": []}
    assert is_looked_into(json.dumps(guard).encode(), "", "/folder")


@pytest.mark.parametrize("let_in", [["/dev/dri"], ["/dev/nvidia-modeset"], ["/dev/dri", "/dev/nvidia-modeset"]])
def test_doors_that_are_let_in(let_in: list[str]) -> None:
    doors = {
        "/dev/dri": {"path": "/dev/dri/card0", "type": "c", "major": 226, "minor": 0},
        "/dev/nvidia-modeset": {"path": "/dev/nvidia-modeset", "type": "c", "major": 195, "minor": 254},
    }
    neighbour = {"path": "/dev/nvidia1", "type": "c", "major": 195, "minor": 1}
    spec: dict[str, Any] = {"linux": {"devices": [*doors.values(), neighbour]}}
    edit = CloseOtherDoors([0], let_in)
    edit.apply(spec)
    assert spec["linux"]["devices"] == [doors[door] for door in doors if door in let_in]
    denied = [rule["major"] for rule in spec["linux"]["resources"]["devices"]]
    assert denied == [major for door, major in (("/dev/dri", 226), ("/dev/nvidia-modeset", 195)) if door not in let_in]
    assert edit.let_in == let_in


# The host's log


def test_the_hosts_log(host: Prepared, tmp_path: Path) -> None:
    log = tmp_path / "log"
    host.configure(log=str(log))
    host.create(container(host, {}, "RUNAI_GPU_MEMORY=1g"))
    note_error(str(host.config), "two\nlines \ud800", "two")
    first, second = map(json.loads, log.read_text().splitlines())
    assert (first["level"], first["id"]) == ("info", "one")
    assert (second["level"], second["id"], second["msg"]) == ("error", "two", "runai: two lines \ud800")
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_can_not_be_written(host: Prepared, tmp_path: Path) -> None:
    target, link, fifo = tmp_path / "target", tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(target)
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    for path in (link, fifo, tmp_path, tmp_path / "none/x", Path("/dev/full"), Path("/proc/version")):
        host.configure(log=str(path))
        assert host.create(container(host, {}, "RUNAI_GPU_MEMORY=1g")).limits
    assert os.read(reader, 10) == b""
    os.close(reader)
    assert not target.exists()
    note("", "info", "nowhere")
    host.config.unlink()
    note_error(str(host.config), "no configuration, no log")
