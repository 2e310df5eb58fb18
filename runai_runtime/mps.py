"""MPS servers of the host's: whether a container can reach one, which then takes device memory on its behalf, outside
of the container and of its share.

A client finds the server by sockets and pipes in one folder, CUDA_MPS_PIPE_DIRECTORY: `control`, `control_privileged`,
`log` and files beside them (NVIDIA's documentation of MPS).
"""

from __future__ import annotations

import os
import stat

from runai_runtime.errors import RefusalError, quoted
from runai_runtime.spec import entries, has_nvidia_hook

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from runai_runtime.spec import Spec

PIPES = "/tmp/nvidia-mps"  # noqa: S108 - the driver's own default
SETTING = "CUDA_MPS_PIPE_DIRECTORY"
MARK = "control_privileged"  # no other folder of sockets has one


def refuse_servers(spec: Spec, environment: dict[str, str], pipes: str = PIPES) -> None:
    """Raise RefusalError for a container into which an MPS server's folder is mounted. Two looks at the file system for
    each mount. The folder PIPES itself counts even before a server is there.
    """
    running = has_server(pipes)
    known = folders_with_servers(pipes)
    for target, source in binds(spec):
        if leads_to_server(source, known):
            raise refusal(f"the volume on {quoted(target)} leads")
    own = environment.get(SETTING, "")
    if own and has_server(on_host(spec, own)):
        raise refusal(f"its {SETTING}, {quoted(own)}, lies in a volume and leads")
    # By --gpus it is mounted by NVIDIA's hook, which stands in no list of mounts.
    if running and has_nvidia_hook(spec):
        raise refusal(f"NVIDIA's container toolkit mounts {pipes}, which leads")


def folders_with_servers(pipes: str = PIPES) -> set[tuple[int, int]]:
    """PIPES, and all above it while a server is there, by identity."""
    found = (identity(folder) for folder in ([pipes, *above(pipes)] if has_server(pipes) else [pipes]))
    return {one for one in found if one}


def leads_to_server(source: str, known: set[tuple[int, int]]) -> bool:
    """Whether a client to which the host's SOURCE is mounted reaches a server: one of those KNOWN, or any other."""
    return identity(source) in known or has_server(source) or is_pipe_of_server(source)


def refusal(subject: str) -> RefusalError:
    return RefusalError(
        f"{subject} to an MPS server of the host's, which takes device memory for its clients outside of the "
        "container's share; leave that out, end the server (echo quit | nvidia-cuda-mps-control), or run the container "
        "without a share"
    )


def binds(spec: Spec) -> list[tuple[str, str]]:
    """Where the container has files of the host's, and their paths there."""
    found = []
    for mount in entries(spec, "mounts"):
        target, source, options = mount.get("destination"), mount.get("source"), mount.get("options")
        words = [mount.get("type"), *(options if isinstance(options, list) else [])]
        if isinstance(target, str) and isinstance(source, str) and ("bind" in words or "rbind" in words):
            found.append((target, source))
    return found


def has_server(folder: str) -> bool:
    return os.path.lexists(os.path.join(folder, MARK))


def is_pipe_of_server(path: str) -> bool:
    """Whether a client reaches a server by this one file."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    is_pipe = stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)
    return is_pipe and has_server(os.path.dirname(os.path.realpath(path)))


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode, by which a folder is the same under any name; None where there is nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def above(path: str) -> list[str]:
    """The folders that hold PATH."""
    folders = []
    path = os.path.realpath(path)
    while path != "/":
        path = os.path.dirname(path)
        folders.append(path)
    return folders


def is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def on_host(spec: Spec, path: str) -> str:
    """What the container's PATH is on the host, by the deepest of its mounts; "/" where it is the container's own."""
    path = os.path.normpath(path)
    around = [(target, source) for target, source in binds(spec) if path == target or is_below(path, target)]
    target, source = max(around, key=lambda one: len(one[0]), default=("", ""))
    return os.path.join(source, path[len(target) :].lstrip("/")) if target else "/"
