"""A driver library of the image's own behind ours, which must still be the file that the shim looked at."""

from __future__ import annotations

import json
import os

import pytest

from runai_runtime.compat import stamp
from tests.unit.hook.container import HOME, Container, check_refused


def own_library(container: Container) -> list[list[str]]:
    """The plan for an image with a libcuda of its own in /opt, which LD_LIBRARY_PATH names."""
    library = container.file("/opt/libcuda.so.590", b"image's cuda")
    container.link("/opt/libcuda.so.1", "libcuda.so.590")
    line = ["image-real", "libcuda.so.1", "/opt/libcuda.so.590", stamp(library.stat())]
    lines = [line if fields[:2] == ["real", "libcuda.so.1"] else fields for fields in container.lines()]
    return [*lines, ["search", "/opt"]]


def test_library_of_the_image_behind_ours(debian: Container) -> None:
    debian.write_plan(lines=own_library(debian))
    assert debian.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    result = debian.create([f"mount --bind {debian.root} {debian.root} && mount -o remount,bind,noexec {debian.root}"])
    assert result.code == 0, result.stderr
    assert result.tree["/.runai/real/libcuda.so.1"] == "image's cuda"
    assert result.tree["/.runai/real/libnvidia-ml.so.1"] == "real nvml"
    assert result.tree["/opt/libcuda.so.590"] == result.tree[f"{HOME}/libcuda.so.1"] == "ours cuda"
    options = result.mounts["/.runai/real/libcuda.so.1"][0].split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)
    assert "noexec" not in options


@pytest.mark.parametrize("how", ["touch -d 2001-01-01 {0}", "echo more >>{0}", "rm {0}; echo >{0}", "rm {0}"])
def test_library_of_the_image_changes_meanwhile(debian: Container, how: str) -> None:
    debian.write_plan(lines=own_library(debian))
    check_refused(
        debian.create([how.format(debian.root / "opt/libcuda.so.590")]), "the image's own /opt/libcuda.so.590"
    )


@pytest.mark.parametrize("to", ["/etc/passwd", "/proc/self/exe", "libcuda.so.590"])
def test_library_of_the_image_becomes_a_link(debian: Container, to: str) -> None:
    debian.write_plan(lines=own_library(debian))
    library = debian.root / "opt/libcuda.so.590"
    check_refused(debian.create([f"rm {library}; ln -s {to} {library}"]), "the image's own /opt/libcuda.so.590")
