"""Whether a container whose end nobody told has ended: its processes say so, not the files of whoever ran it.

A containerd that crashes can forget a container, which runc then knows for ever, as "stopped".
"""

from __future__ import annotations

import os

from runai_runtime.files import read_small

CGROUPS = "/sys/fs/cgroup"


def has_ended(folder: str) -> bool:
    """Whether the container whose grant lies in FOLDER has run, and has no process any more. What can't be told is no
    end. A process that has its first one's number now counts as that one.
    """
    return is_running(folder) is False and not has_processes(folder)


def is_running(folder: str) -> bool | None:
    """Whether the first process of the container whose grant lies in FOLDER is there; None where that can't be told."""
    try:
        os.kill(int(read_small(f"{folder}/pid")), 0)  # the prestart hook's
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return None
    return True


def has_processes(folder: str) -> bool:
    """With the host's pid namespace a container's processes outlive its first one: those in its cgroups, and in the
    cgroups that it made below them.
    """
    try:
        lines = read_small(f"{folder}/cgroup").splitlines()
        return any(is_populated(path) for line in lines for path in places(line))
    except (OSError, ValueError):
        return True


def places(line: str) -> list[str]:
    """Where a line of /proc/PID/cgroup (cgroups(7)) may lead: version 2 alone, beside version 1, or version 1."""
    _, controllers, path = line.split(":", 2)
    kind = controllers.removeprefix("name=")
    return [f"{CGROUPS}/{kind}{path}"] if kind else [f"{CGROUPS}{path}", f"{CGROUPS}/unified{path}"]


def is_populated(path: str) -> bool:
    for folder, _, files in os.walk(path):
        if "cgroup.procs" in files:
            with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as file:
                if file.read(1):
                    return True
    return False
