"""When the cached look at the host is made anew, and what it has of each GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pynvml
import pytest

from runai_runtime import inventory, scan
from runai_runtime.errors import RefusalError
from runai_runtime.host import Host

NEEDED = {"runtime": "/r", "hook": "/h", "libvgpu": "/l"}


@pytest.fixture
def bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's folder of a driver: a link for each device, and some files."""
    folder = tmp_path / "nvidia"
    folder.mkdir()
    for name in ("bind", "new_id", "0000:03:00.0", "0000:41:00.0"):
        (folder / name).symlink_to("/sys/devices")
    monkeypatch.setattr(inventory, "BOUND", str(folder))
    return folder


def gpus_there(**driver: str) -> list[str]:
    return inventory.circumstances(Host("/c", NEEDED | {"driver": driver}))["gpus"]  # type: ignore[no-any-return] # JSON


def test_a_gpu_that_goes_and_comes(bound: Path) -> None:
    before = gpus_there()
    assert [entry.split()[0] for entry in before] == ["0000:03:00.0", "0000:41:00.0"]
    (bound / "unbind").symlink_to("/sys/devices")
    assert gpus_there() == before, "no device"
    (bound / "0000:41:00.0").rename(bound / "away")
    assert gpus_there() == before[:1]
    (bound / "0000:41:00.0").symlink_to("/sys/devices")
    assert gpus_there() != before, "it is there again, and may have got another minor"


def test_without_such_a_folder(tmp_path: Path, bound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "BOUND", str(tmp_path / "none"))
    assert gpus_there() == []
    assert gpus_there(devices=str(tmp_path / "none")) == []


def test_nodes_in_a_folder_of_their_own(tmp_path: Path, bound: Path) -> None:
    for name in ("nvidiactl", "nvidia-uvm", "nvidia1", "nvidia10", "nvidia-caps"):
        (tmp_path / name).touch()
    assert gpus_there(devices=str(tmp_path))[2:] == ["nvidia1", "nvidia10"]


class Memory:
    total, reserved = 8 << 30, 64 << 20


class Pci:
    busId = b"00000000:41:00.0"  # noqa: N815 - NVML's name


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """NVML on a host of two GPUs; LOST are the indices of those that fell off the bus."""
    facts: dict[str, Any] = {"lost": set()}

    def handle(index: int) -> int:
        if index in facts["lost"]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlSystemGetCudaDriverVersion": lambda: 12080,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMemoryInfo": lambda *_, **__: Memory,
        "nvmlDeviceGetUUID": "GPU-{}".format,
        "nvmlDeviceGetName": lambda _: "A",
        "nvmlDeviceGetMinorNumber": lambda index: 7 - index,
        "nvmlDeviceGetPciInfo": lambda _: Pci,
        "nvmlDeviceGetMigMode": lambda _: [0, 0],
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return facts


def test_what_nvml_says(nvml: dict[str, Any]) -> None:
    driver, cuda, gpus, divided = scan.ask_nvml("libc.so.6", {})
    assert (driver, cuda, len(gpus), divided) == ("580.1", "12.8", 2, [])
    assert gpus[1] == {
        "index": 1,
        "uuid": "GPU-1",
        "name": "A",
        "minor": 6,
        "bus": "00000000:41:00.0",
        "total": 8 << 30,
        "reserved": 64 << 20,
    }


def test_a_gpu_that_fell_off_the_bus(nvml: dict[str, Any]) -> None:
    """The others keep their indices, which are NVML's."""
    nvml["lost"] = {0}
    assert [gpu["index"] for gpu in scan.ask_nvml("libc.so.6", {})[2]] == [1]
    nvml["lost"] = {0, 1}
    with pytest.raises(RefusalError, match="no GPU that answers"):
        scan.ask_nvml("libc.so.6", {})
