"""Whether this host's kernel and low-level runtimes can hand ioctls to an agent. Looked at once, with the scan."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
from collections.abc import Iterable
from typing import Any

SECONDS = 10
KERNEL = (5, 9)  # in it the descriptors that the agent needs work as runtimes use them (SECCOMP_IOCTL_NOTIF_ADDFD)
PIDFD_OPEN, PIDFD_GETFD = 434, 438  # the same on x86_64 and aarch64
CRUN = (0, 19)
PTRACE_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
ACTIONS = "/proc/sys/kernel/seccomp/actions_avail"

# A call that the listener has taken waits for its answer then, whatever signal comes, but one that kills. Since Linux
# 5.19, runc 1.5 with libseccomp 2.6 (it lists what it can set) and crun 1.6, which lists no flags in any version.
WAIT_KILLABLE = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
WAIT_KILLABLE_KERNEL = (5, 19)
WAIT_KILLABLE_CRUN = (1, 6)


def agent_faults(runtimes: Iterable[str]) -> dict[str, str]:
    """For each of RUNTIMES, why a container of it can't have an agent, as a part of a sentence; "" where it can."""
    kernel = kernel_fault(os.uname().release) or ptrace_fault(PTRACE_SCOPE)
    return {runtime: kernel or runtime_fault(runtime) for runtime in runtimes}


def kernel_fault(release: str, path: str = ACTIONS) -> str:
    if version(release) < KERNEL:
        return f"the kernel is {release}, and 5.9 or later is needed"
    try:
        with open(path, encoding="ascii") as file:
            actions = file.read().split()
    except OSError:
        actions = []
    if "user_notif" not in actions:
        return "the kernel is built without seccomp's user notifications (CONFIG_SECCOMP_FILTER)"
    return "" if can_take_descriptors() else "the kernel, or what this process runs under, refuses pidfd_getfd"


def ptrace_fault(path: str) -> str:
    """The scopes 0 to 2 let through whoever has CAP_SYS_PTRACE, as the agent does; 3 nobody, until the next boot
    (Documentation/admin-guide/LSM/Yama.rst).
    """
    try:
        with open(path, encoding="ascii") as file:
            scope = file.read().strip()
    except OSError:
        return ""  # a kernel without Yama
    return f"{path} is 3, with which nobody may read another's memory; boot with a lower one" if scope == "3" else ""


def filter_flags(runtimes: Iterable[str], release: str = "") -> dict[str, list[str]]:
    """For each of RUNTIMES, the flags that are good for a filter with a listener and that it and the kernel take."""
    if version(release or os.uname().release) < WAIT_KILLABLE_KERNEL:
        return {}
    return {runtime: [WAIT_KILLABLE] for runtime in runtimes if can_wait_killable(runtime)}


def can_wait_killable(runtime: str) -> bool:
    flags = seccomp_features(runtime).get("supportedFlags")  # "knownFlags" has what its libseccomp can't set, too
    return (isinstance(flags, list) and WAIT_KILLABLE in flags) or is_crun(runtime, WAIT_KILLABLE_CRUN)


def version(text: str) -> tuple[int, int]:
    """The first two numbers at the start of TEXT; zeroes where there are none."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def can_take_descriptors() -> bool:
    """Whether pidfd_getfd(2) works, tried on this very process."""
    syscall = ctypes.CDLL(None).syscall
    with open(os.devnull, "rb") as null:
        process = syscall(PIDFD_OPEN, os.getpid(), 0)
        if process < 0:
            return False
        copy = syscall(PIDFD_GETFD, process, null.fileno(), 0)
        os.close(process)
    if copy < 0:
        return False
    os.close(copy)
    return True


def runtime_fault(runtime: str) -> str:
    actions = seccomp_features(runtime).get("actions")
    if not isinstance(actions, list):
        return "" if is_crun(runtime, CRUN) else f"{runtime} doesn't say that it knows SCMP_ACT_NOTIFY (runc 1.1 does)"
    return "" if "SCMP_ACT_NOTIFY" in actions else f"{runtime} can't hand system calls to a listener (SCMP_ACT_NOTIFY)"


def seccomp_features(runtime: str) -> dict[str, Any]:
    """What RUNTIME says of itself (the OCI's features structure), of seccomp; empty where it says nothing."""
    try:
        said = json.loads(answer(runtime, "features"))["linux"]["seccomp"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return {}
    return said if isinstance(said, dict) else {}


def is_crun(runtime: str, least: tuple[int, int]) -> bool:
    """Whether RUNTIME is a crun of that version or a later one, built with seccomp.

    A crun may have no `features` (1.8.1 has none), while listenerPath is in it since 0.19.
    """
    try:
        said = answer(runtime, "--version")
    except (OSError, subprocess.SubprocessError):
        return False
    name = "crun version "
    return said.startswith(name) and "+SECCOMP" in said.split() and version(said.removeprefix(name)) >= least


def answer(runtime: str, word: str) -> str:
    return subprocess.run(
        [runtime, word], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=SECONDS
    ).stdout
