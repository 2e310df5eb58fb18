"""Whether this host's kernel and low-level runtimes can hand ioctls to an agent. Looked at once, with the scan."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
from collections.abc import Iterable

SECONDS = 10
KERNEL = (5, 9)  # in it the descriptors that the agent needs work as runtimes use them (SECCOMP_IOCTL_NOTIF_ADDFD)
PIDFD_OPEN, PIDFD_GETFD = 434, 438  # the same on x86_64 and aarch64
CRUN = (0, 19)
PTRACE_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"


def agent_faults(runtimes: Iterable[str]) -> dict[str, str]:
    """For each of RUNTIMES, why a container of it can't have an agent, as a part of a sentence; "" where it can."""
    kernel = kernel_fault(os.uname().release) or ptrace_fault(PTRACE_SCOPE)
    return {runtime: kernel or runtime_fault(runtime) for runtime in runtimes}


def kernel_fault(release: str) -> str:
    found = re.match(r"(\d+)\.(\d+)", release)
    if not found or (int(found[1]), int(found[2])) < KERNEL:
        return f"the kernel is {release}, and 5.9 or later is needed"
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
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
    try:
        features = json.loads(answer(runtime, "features"))
        actions = features["linux"]["seccomp"]["actions"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return "" if is_able_crun(runtime) else f"{runtime} doesn't say that it knows SCMP_ACT_NOTIFY (runc 1.1 does)"
    return "" if "SCMP_ACT_NOTIFY" in actions else f"{runtime} can't hand system calls to a listener (SCMP_ACT_NOTIFY)"


def is_able_crun(runtime: str) -> bool:
    """A crun may have no `features` (1.8.1 has none), while listenerPath is in it since 0.19: there its version tells,
    and that it was built with seccomp.
    """
    try:
        said = answer(runtime, "--version")
    except (OSError, subprocess.SubprocessError):
        return False
    found = re.match(r"crun version (\d+)\.(\d+)", said)
    if found is None or "+SECCOMP" not in said.split():
        return False
    return (int(found[1]), int(found[2])) >= CRUN


def answer(runtime: str, word: str) -> str:
    return subprocess.run(
        [runtime, word], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=SECONDS
    ).stdout
