"""Paths in an image's root file system, as the container's own look-up would have them before anything is mounted.

The image is hostile: its links may point anywhere. So a path is walked here, a part at a time and by descriptor; what
is found lies in the root, whatever a link says. (Python has no openat2, with which the hook does the same.)
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

MOST_LINKS = 40  # as many as the kernel follows
MOST_PARTS = 400
LONGEST = 4095  # characters, of a path without links: what a plan can hold


class Place:
    """What a path leads to: a descriptor (O_PATH), the path without links, and all folders that the way there has led
    through. To be used in a `with`, which closes the descriptor.
    """

    __slots__ = ("fd", "passed", "path")

    def __init__(self, fd: int, path: str, passed: set[str]) -> None:
        self.fd, self.path, self.passed = fd, path, passed

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)


def look_up(root: str, path: str) -> Place:
    """Raises OSError where PATH leads nowhere in ROOT, ValueError where it can't be a path."""
    walk = Walk(root)
    try:
        walk.to(path)
        return Place(walk.folders.pop(), walk.path(), walk.passed)
    finally:
        walk.close()


def real_path(root: str, path: str) -> str:
    """PATH without links. Raises as look_up."""
    with look_up(root, path) as place:
        return place.path


def mount_points(root: str, targets: list[str]) -> list[str]:
    """What a runtime is going to make in ROOT for mounts at TARGETS: those that aren't there and the folders that they
    need, as paths without links, each after the folder that it is in.
    """
    by_folder: dict[str, list[str]] = {}
    for target in targets:
        folder, name = os.path.split(os.path.normpath(target))
        by_folder.setdefault(folder, []).append(name)
    made: list[str] = []
    for folder, names in by_folder.items():
        try:
            made += made_in(root, folder, names)
        except (OSError, ValueError):  # noqa: PERF203 - of an odd folder the runtime has its own to say
            continue
    return made


def made_in(root: str, folder: str, names: list[str]) -> list[str]:
    """The same for mounts at NAMES in one FOLDER."""
    lacking: list[str] = []
    while True:
        try:
            place = look_up(root, folder)
            break
        except FileNotFoundError:
            if folder == "/":
                raise
            folder, name = os.path.split(folder)
            lacking.append(name)
    with place:
        if not lacking:
            return [os.path.join(place.path, name) for name in names if not is_there(place.fd, name)]
        folders = [os.path.join(place.path, *lacking[: -count - 1 : -1]) for count in range(1, len(lacking) + 1)]
        return folders + [os.path.join(folders[-1], name) for name in names]


def is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


class Walk:
    """The way down from the root: a descriptor and a name for each step."""

    __slots__ = ("folders", "names", "passed")

    def __init__(self, root: str) -> None:
        self.names: list[str] = []
        self.folders = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        self.passed = {"/"}

    def path(self) -> str:
        return "/" + "/".join(self.names)

    def to(self, path: str) -> None:
        parts = parts_of(path)
        links = 0
        for _ in range(MOST_PARTS):
            if not parts:
                return
            link = self.step(parts.pop())
            if link:
                links += 1
                if link.startswith("/"):
                    self.back(len(self.names))
                parts += parts_of(link)
            if links > MOST_LINKS:
                break
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def step(self, name: str) -> str:
        """One step down, or up for "..". Where NAME is a link, no step is made and what it says comes back."""
        if name == "..":
            self.back(min(1, len(self.names)))
            return ""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folders[-1])
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            try:
                return os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
        self.folders.append(fd)
        self.names.append(name)
        path = self.path()
        if len(path) > LONGEST:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        self.passed.add(path)
        return ""

    def back(self, steps: int) -> None:
        for _ in range(steps):
            os.close(self.folders.pop())
            self.names.pop()

    def close(self) -> None:
        for fd in self.folders:
            os.close(fd)


def parts_of(path: str) -> list[str]:
    """The names in PATH, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
