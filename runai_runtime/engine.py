"""What the engine calls its containers: one question to its socket for all of them, begun early and read late.

It is a help for people's eyes: without an answer everything else is there, under the containers' ids.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress

SOCKET = "/var/run/docker.sock"
LARGEST = 64 << 20  # bytes of an answer
# In HTTP/1.0 the engine answers in one piece and closes.
QUESTION = b"GET /containers/json HTTP/1.0\r\nHost: docker\r\n\r\n"
BEGIN_SECONDS = 0.2  # to connect and to write: both are done by the kernel at once where anybody listens


def socket_path() -> str:
    """Of the engine that docker's client would ask; "" for one on another machine."""
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else "" if host else SOCKET


class Names:
    """Name and image of each container that runs, by id."""

    def __init__(self, path: str) -> None:
        self.connection: socket.socket | None = None
        if not path:
            return
        with suppress(OSError):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(BEGIN_SECONDS)
                connection.connect(path)
                connection.sendall(QUESTION)
                self.connection = connection
            except OSError:
                connection.close()

    def read(self, until: float) -> dict[str, tuple[str, str]]:
        """Empty where the engine has not answered by UNTIL (time.monotonic()). Only once."""
        if self.connection is None:
            return {}
        with self.connection as connection, suppress(OSError):
            answer = bytearray()
            while len(answer) <= LARGEST:
                connection.settimeout(max(0.001, until - time.monotonic()))
                part = connection.recv(1 << 18)
                if not part:
                    return parse(bytes(answer))
                answer += part
        return {}


def parse(answer: bytes) -> dict[str, tuple[str, str]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        return {}
    try:
        return {entry["Id"]: (name_of(entry["Names"]), str(entry["Image"])) for entry in json.loads(body)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def name_of(names: list[str]) -> str:
    """The container's own among NAMES: those with a second slash are other containers' links to it."""
    return next((name[1:] for name in names if name.count("/") == 1), "")
