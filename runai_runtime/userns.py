"""User namespaces: who a container's root is on the host, and whether the hook can work as that user.

The createContainer hook runs as the container's root, in the container's user namespace (OCI runtime specification).
"""

from __future__ import annotations

import os
import stat

from runai_runtime.errors import RefusalError, quoted
from runai_runtime.spec import entries, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runai_runtime.spec import Spec

    Owner = tuple[int, int]


NOBODY = (1 << 32) - 1  # no id of the kernel's (user_namespaces(7))


def owner_of_root(spec: Spec) -> Owner | None:
    """The host's user and group that are root in the container; None without a user namespace of its own.

    Raises RefusalError where they can't be told.
    """
    linux = section(spec, "linux")
    namespaces = [entry for entry in entries(linux, "namespaces") if entry.get("type") == "user"]
    if any(entry.get("path") for entry in namespaces):
        raise RefusalError(
            "the container joins the user namespace of another, in which nobody can tell who its root is; give it one "
            "of its own, or run it with --userns=host",
        )
    if not namespaces and not linux.get("uidMappings"):
        return None
    return host_id(linux, "uidMappings"), host_id(linux, "gidMappings")


def host_id(linux: object, key: str) -> int:
    """The host's id for the container's 0, by the mappings at KEY."""
    for mapping in entries(linux, key):
        host, size = mapping.get("hostID"), mapping.get("size")
        if not isinstance(host, int) or not isinstance(size, int) or not 0 <= host < NOBODY:
            continue
        if mapping.get("containerID", 0) == 0 and size > 0:
            return host
    raise RefusalError(
        f"the container has a user namespace in which nobody is root ({key}), so its share can't be set up; map 0 as "
        "well, or run it with --userns=host",
    )


def refuse_out_of_reach(owner: Owner, programs: list[str], files: list[str]) -> None:
    """Raise RefusalError unless OWNER may start each of PROGRAMS and read each of FILES, by their modes."""
    seen: set[str] = set()
    for bit, paths in ((1, programs), (4, files)):
        for path in paths:
            refuse_closed(owner, os.path.realpath(path), bit, seen)


def refuse_closed(owner: Owner, path: str, bit: int, seen: set[str]) -> None:
    """Raise RefusalError unless the permission BIT (4 read, 1 execute) of PATH, and 1 of each folder above it, are set
    for OWNER. What isn't there is for others to tell.
    """
    if path in seen:
        return
    if path != "/":
        refuse_closed(owner, os.path.dirname(path), 1, seen)
    try:
        status = os.stat(path)
    except OSError:
        return
    shift = 6 if status.st_uid == owner[0] else 3 if status.st_gid == owner[1] else 0
    if not status.st_mode >> shift & bit:
        what = "folder" if stat.S_ISDIR(status.st_mode) else "file"
        mode = "o+x" if bit == 1 else "o+r"
        raise RefusalError(
            f"the container has a user namespace of its own, and its root, the host's user {owner[0]}, can't get at "
            f"the {what} {quoted(path, 200)}; open it with chmod {mode}, or run the container with "
            "--userns=host",
        )
    if bit == 1:
        seen.add(path)


def refuse_not_runnable(files: list[str]) -> None:
    """Raise RefusalError for one of FILES on a file system that is mounted noexec: so would it be in the container,
    since the kernel lets no user namespace undo that.
    """
    for folder, path in {os.path.dirname(path): path for path in files}.items():
        try:
            flags = os.statvfs(folder).f_flag
        except OSError:
            continue
        if flags & os.ST_NOEXEC:
            raise RefusalError(
                f"the container has a user namespace of its own, in which {quoted(path, 200)} couldn't be run, since "
                'its file system is mounted noexec; keep it on another one ("fitted" in the configuration says where '
                "libvgpu lies), or run the container with --userns=host",
            )
