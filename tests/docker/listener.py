"""A seccomp listener that lets every call go on, and remembers what it was told (seccomp_unotify(2))."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path
from types import TracebackType

RECEIVE, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1


class Listener:
    """Answers at a listening socket, as linux.seccomp.listenerPath names it; a context manager."""

    def __init__(self, listening: socket.socket) -> None:
        self.requests: list[int] = []  # of each ioctl, 64 bits
        self.messages: list[bytes] = []
        self.ended = threading.Event()  # the last of the filters that were handed over
        self.delay = 0.0  # seconds from a call to its answer
        self._open = 0
        self._lock = threading.Lock()
        self._socket = listening
        self._thread = threading.Thread(target=self.serve)

    @classmethod
    def at(cls, path: Path) -> Listener:
        """At a new socket of that path."""
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        return cls(listening)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def serve(self) -> None:
        """Until the socket is closed. Each container process that hands over a filter has a thread."""
        threads = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    message, descriptors, _, _ = socket.recv_fds(connection, 65536, 8)
                self.messages.append(message)
                with self._lock:
                    self._open += 1
                threads.append(threading.Thread(target=self._serve_one, args=(descriptors,), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve_one(self, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            if "seccomp" in os.readlink(f"/proc/self/fd/{descriptor}"):
                self._answer(descriptor)
            os.close(descriptor)
        with self._lock:
            self._open -= 1
            if not self._open:
                self.ended.set()

    def _answer(self, notify: int) -> None:
        """Until the last process under the filter has ended."""
        poll = select.poll()
        poll.register(notify, select.POLLIN)
        while True:
            (_, events), *_ = poll.poll()
            if not events & select.POLLIN:
                return
            notification = bytearray(80)
            with contextlib.suppress(FileNotFoundError):  # its process was killed
                fcntl.ioctl(notify, RECEIVE, notification)
                self.requests.append(struct.unpack_from("<Q", notification, 40)[0])
                time.sleep(self.delay)
                (identity,) = struct.unpack_from("<Q", notification)
                fcntl.ioctl(notify, SEND, struct.pack("<QqiI", identity, 0, 0, CONTINUE))
