"""Print, as a CMake list, where the build's Python packages keep the zig program and NVIDIA's headers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def zig() -> Path:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        sys.exit("the Python package ziglang is missing")
    return Path(spec.origin).with_name("zig")


def headers() -> Path:
    """The folder that holds both cuda.h and nvml.h."""
    spec = importlib.util.find_spec("nvidia")
    for location in (spec and spec.submodule_search_locations) or ():
        for header in sorted(Path(location).glob("cu*/include/cuda.h")):
            if header.with_name("nvml.h").exists():
                return header.parent
    sys.exit("the Python packages nvidia-cuda-runtime and nvidia-nvml-dev are missing")


if __name__ == "__main__":
    print(f"{zig()};{headers()}", end="")
