"""NVML's answers for doctor, asked in a process of their own (facts.py)."""

from __future__ import annotations

import json
import sys
from typing import Any

import pynvml

from runai_runtime.errors import RefusalError
from runai_runtime.scan import ask_nvml

# NVML_DEVICE_ADDRESSING_MODE_* in nvml.h: how a GPU reaches ordinary memory of the processor's.
MODES = {0: "none", 1: "HMM", 2: "ATS"}


def main(library: str) -> None:
    """Print {"driver", "cuda", "gpus", "divided", "modes"}: versions, the GPUs and those in MIG mode as scan.py has
    them, and the addressing modes ("" where the driver doesn't say); or {"refusal": sentence}.
    """
    try:
        driver, cuda, gpus, divided = ask_nvml(library, {})
        said: dict[str, Any] = {"driver": driver, "cuda": cuda, "gpus": gpus, "divided": divided}
        said["modes"] = [addressing_mode(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except RefusalError as refusal:
        said = {"refusal": str(refusal)}
    sys.stdout.write(json.dumps(said))


def addressing_mode(index: int) -> str:
    """Older drivers and older versions of nvidia-ml-py have no such function."""
    try:
        mode = pynvml.nvmlDeviceGetAddressingMode(pynvml.nvmlDeviceGetHandleByIndex(index))
    except (pynvml.NVMLError, AttributeError):
        return ""
    return MODES.get(mode, "")
