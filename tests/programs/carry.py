"""What tests/gpu needs on a machine that has a GPU, and neither a compiler nor a network.

`python -m tests.programs.carry FOLDER` compiles the programs into FOLDER, and fetches a Vulkan loader from Debian into
FOLDER/vulkan. On the other machine, FOLDER is the tests' --programs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.programs.build import program

PROGRAMS = {
    "cudabench": (),
    "cudash": (),
    "cudaways": (),
    "footprint": (),
    "nvmlsh": (),
    "rawgpu": ("-static",),
    "vulkanfill": (),
}
PACKAGES = ("libvulkan1", "libx11-6", "libxext6", "libxcb1", "libxau6", "libxdmcp6", "libbsd0", "libmd0")
"""The loader, and what the driver's GLX library needs beyond the C library."""


def carry(folder: Path) -> None:
    """Raises CalledProcessError where apt-get can't fetch a package."""
    vulkan = folder / "vulkan"
    vulkan.mkdir(parents=True, exist_ok=True)
    for name, flags in PROGRAMS.items():
        shutil.copy(program(name, *flags), folder / name)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *PACKAGES], cwd=scratch, check=True
        )
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, scratch], check=True)
        for library in Path(scratch).glob("**/lib/*/lib*.so.*"):
            if library.is_symlink():  # the name that programs look for
                shutil.copy(library, vulkan / library.name)


if __name__ == "__main__":
    carry(Path(sys.argv[1]))
