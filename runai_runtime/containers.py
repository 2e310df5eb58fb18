"""The containers that have a share, read from their grants, and which of them a person means."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import Any

from runai_runtime import grant as grants
from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.files import read_small
from runai_runtime.host import Host
from runai_runtime.pages import Figure, Use, read_agent_page

SHORT = 12  # characters of an id that docker shows


class NoSuchContainerError(RefusalError):
    """What was named is no container with a share, or could be several."""


@dataclass
class Process:
    """What a process holds on one GPU; PID is the host's, 0 where it is not known."""

    pid: int
    command: str
    gpu: int | str
    bytes: int


@dataclass
class Container:
    """A container with a share. SINCE: when it was made, in seconds since the epoch, 0 where that is not known. NAME
    and IMAGE are the engine's, "" without one that answers.
    """

    id: str
    folder: str
    grant: dict[str, Any]
    figures: list[Figure]
    uses: list[Use]
    since: float = 0
    name: str = ""
    image: str = ""
    processes: list[Process] = field(default_factory=list)
    is_bereft: bool = False  # its agent has ended before it

    @property
    def by(self) -> str:
        """What keeps the share: "agent" or "interposer"."""
        return str(self.grant["enforcement"].get("by", "?"))

    @property
    def kept_by(self) -> str:
        """For people: BY, unless that is there no more."""
        return "no agent" if self.is_bereft else self.by

    @property
    def gpus(self) -> list[int | str]:
        return [gpu["index"] for gpu in self.grant["gpus"]]

    @property
    def title(self) -> str:
        return self.name or self.id[:SHORT]

    @property
    def pid(self) -> int:
        """Its first process, the host's number; 0 until it is known."""
        try:
            return int(read_small(f"{self.folder}/pid"))
        except (OSError, ValueError):
            return 0


def read_containers(host: Host) -> tuple[list[Container], list[str]]:
    """All that live, the oldest first, and the ids of those whose grants this version can't read.

    Nothing is locked and nothing taken back: grants appear and change whole.
    """
    try:
        names = os.listdir(host.state)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise RefusalError(
            f"the state folder {host.state} can't be read: {reason(error)}; only root can look at the shares"
        ) from error
    found, unreadable = [], []
    booted = boot_time()
    for name in sorted(names):
        folder = os.path.join(host.state, name)
        grant = None if name in grants.KEPT or name.startswith(".") else grants.living(folder)
        if grant is None:
            continue
        try:
            found.append(container_of(name, folder, grant, booted))
        except (KeyError, TypeError, AttributeError, ValueError):
            unreadable.append(name)
    return sorted(found, key=lambda container: (container.since, container.id)), unreadable


def container_of(name: str, folder: str, grant: dict[str, Any], booted: float) -> Container:
    """Raises KeyError, TypeError, AttributeError or ValueError for a grant that isn't as this version writes them."""
    if not grants.is_known(grant):
        raise ValueError(name)
    figures, uses = [Figure(int(gpu["limit"])) for gpu in grant["gpus"]], list[Use]()
    grant.setdefault("enforcement", {})
    if grant["enforcement"].get("by") == "agent":
        counted = read_agent_page(f"{folder}/page", len(figures))
        figures, uses = (counted.figures, counted.uses) if counted else (figures, uses)
    start = int(grant["creator"]["start"])
    made = Container(name, folder, grant, figures, uses, booted + start / os.sysconf("SC_CLK_TCK") if start else 0)
    made.is_bereft = made.by == "agent" and not is_listened_at(f"{folder}/control")
    return made


def is_listened_at(path: str) -> bool:
    """Whether anybody has the stream socket at PATH open. Nothing is queued there: the kernel says before that a
    datagram socket doesn't fit, or that there is nobody.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def boot_time() -> float:
    """When this boot was, in seconds since the epoch (proc_stat(5), btime)."""
    with open("/proc/stat", encoding="ascii") as file:
        return next((float(line.split()[1]) for line in file if line.startswith("btime ")), 0.0)


def find(containers: list[Container], wanted: str) -> Container:
    """That of CONTAINERS which WANTED names, by id, name or the beginning of an id. Raises NoSuchContainerError."""
    for found in (
        [container for container in containers if container.id == wanted],
        [container for container in containers if wanted and container.name == wanted],
        [container for container in containers if wanted and container.id.startswith(wanted)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            titles = ", ".join(sorted(container.id[:SHORT] for container in found)[:4])
            raise NoSuchContainerError(
                f"{quoted(wanted)} can mean {len(found)} containers ({titles}); write more of it",
            )
    raise NoSuchContainerError(
        f"no container {quoted(wanted)} with a share of a GPU is here; runai-ctl status lists those that are"
    )
