"""runai-ctl logs: what the runtime and the agents have said, in the order of time."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from runai_runtime.columns import printable
from runai_runtime.containers import SHORT, Container, NoSuchContainerError
from runai_runtime.errors import RefusalError, reason
from runai_runtime.host import Host
from runai_runtime.overview import look

LARGEST = 8 << 20  # bytes of a log's end that are read


@dataclass
class Line:
    time: str  # RFC 3339, UTC
    container: str  # id, "" for what is about none
    source: str  # "runtime" or "agent"
    level: str
    text: str
    name: str = ""  # the engine's for the container


def read_logs(host: Host, containers: list[Container]) -> list[Line]:
    """All lines of the host's log, and of the agents of CONTAINERS. Raises RefusalError for an unreadable log."""
    lines = [*host_lines(host.log)] if host.log else []
    for container in containers:
        lines += agent_lines(container)
    return sorted(lines, key=lambda line: line.time)


def lines_of(host: Host, wanted: str) -> list[Line]:
    """Those of one container, which may have ended ("": of all): WANTED is as containers.find() has it."""
    overview = look(host, gpus=False)
    names = {container.id: container.title for container in overview.containers}
    try:
        found = overview.find(wanted) if wanted else None
    except NoSuchContainerError:
        lines = [line for line in read_logs(host, []) if line.container.startswith(wanted)]
        if not lines:
            raise
        return lines
    lines = read_logs(host, [found] if found else overview.containers)
    for line in lines:
        line.name = names.get(line.container, "")
    return [line for line in lines if found is None or line.container == found.id]


def as_text(line: Line) -> str:
    """One line, printable whatever was said."""
    source = line.source if line.level == "info" else f"{line.source} {line.level}"
    said = f"{line.time} {line.name or line.container[:SHORT] or '-'} {source}: {line.text}"
    return printable(said)


def host_lines(path: str) -> Iterator[Line]:
    try:
        text = read_end(path)
    except FileNotFoundError:
        return  # nobody has said anything yet
    except OSError as error:
        raise RefusalError(f"the log {path} can't be read: {reason(error)}") from error
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            said = entry["msg"].removeprefix("runai: ")
            yield Line(entry["time"], entry.get("id", ""), "runtime", entry["level"], said)
        except (ValueError, KeyError, TypeError, AttributeError):  # noqa: PERF203 - the other lines are good
            continue  # the beginning is cut, or somebody else has written there


def agent_lines(container: Container) -> Iterator[Line]:
    try:
        text = read_end(os.path.join(container.folder, "agent.log"))
    except OSError:
        return
    for line in text.splitlines():
        when, _, said = line.partition(" ")
        if re.fullmatch(r"[0-9T:-]+Z", when):
            yield Line(when, container.id, "agent", "info", said)


def read_end(path: str) -> str:
    """The last LARGEST bytes of a regular file. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no regular file")
        return os.pread(file, LARGEST, max(0, status.st_size - LARGEST)).decode("utf-8", "replace")
    finally:
        os.close(file)
