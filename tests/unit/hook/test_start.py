"""How the program is started: its arguments, its state directory, and the kernel under it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.hook.container import Container, check_refused, snapshot

# Starts the hook under a seccomp filter. 38 is PR_SET_NO_NEW_PRIVS, 22 PR_SET_SECCOMP, 2 SECCOMP_MODE_FILTER.
OLD_KERNEL = r"""#!{python}
import ctypes, os, struct, sys
program = ctypes.create_string_buffer(open("{filter}", "rb").read())
header = ctypes.create_string_buffer(struct.pack("@HP", (len(program) - 1) // 8, ctypes.addressof(program)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, header, 0, 0) == 0
os.execve("{hook}", ["{hook}", *sys.argv[1:]], {{}})
"""


@pytest.mark.parametrize(
    ("call", "number"),
    [("openat2", 437), ("open_tree", 428), ("move_mount", 429), ("fsopen", 430), ("mount_setattr", 442)],
)
def test_kernel_is_too_old(debian: Container, call: str, number: int) -> None:
    """A seccomp filter plays a kernel that doesn't know a call."""
    lines = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
    (debian.base / "filter").write_bytes(b"".join(struct.pack("=HBBI", *line) for line in lines))
    wrapper = debian.base / "old-kernel"
    wrapper.write_text(OLD_KERNEL.format(python=sys.executable, filter=debian.base / "filter", hook=debian.hook))
    wrapper.chmod(0o755)
    debian.hook = wrapper
    check_refused(debian.create(), f"the kernel has no {call}", "5.12")


@pytest.mark.parametrize("arguments", [[], ["prestart"], ["start", "/x"], ["prestart", "x"], ["prestart", "/x", "y"]])
def test_arguments(checked_hook: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [checked_hook, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, env={}, check=False
    )
    check_refused(done)


def test_state_directory_is_a_link(debian: Container) -> None:
    real = debian.base / "elsewhere"
    debian.state.rename(real)
    debian.state.symlink_to(real)
    before = snapshot(real)
    for stage in ("prestart", "createContainer", "poststop"):
        check_refused(debian.stage(stage, json.dumps({"pid": os.getpid()})), str(debian.state))
    assert snapshot(real) == before


def test_guard_stops_every_container(debian: Container) -> None:
    """Nothing of the container is needed for it: the second stage, which makes that, never came."""
    shutil.rmtree(debian.state)
    check_refused(debian.stage("guard"), str(debian.state), "config.toml", "runai-ctl configure")
