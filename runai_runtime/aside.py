"""What may never return, done in a child process: a driver that hangs, a file that a container serves."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LARGEST = 16 << 20  # bytes of an answer


class Aside:
    """FUNCTION, begun in a child at once; what it answers has to be something that JSON can say.

    For a process with one thread: the child goes on with all its locks.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.receiver, sender = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            self._answer(function, sender)
        os.close(sender)

    def _answer(self, function: Callable[[], Any], sender: int) -> None:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            with os.fdopen(sender, "wb") as pipe:
                pipe.write(json.dumps(function()).encode())
        finally:
            os._exit(0)  # whatever was raised: half an answer is none

    def result(self, until: float) -> Any:
        """What it answered; None where it failed, or has not by UNTIL (time.monotonic()). Only once."""
        text = b""
        try:
            while len(text) <= LARGEST:
                ready, _, _ = select.select([self.receiver], [], [], max(0, until - time.monotonic()))
                part = os.read(self.receiver, 1 << 16) if ready else b""
                text += part
                if not part:
                    break
            return json.loads(text) if ready else None
        except (OSError, ValueError):
            return None
        finally:
            os.close(self.receiver)
            self._end()

    def _end(self) -> None:
        """Not waited for where it hangs: nothing helps then before the driver answers."""
        with suppress(OSError):
            os.kill(self.child, signal.SIGKILL)
            for _ in range(20):
                if os.waitpid(self.child, os.WNOHANG)[0]:
                    return
                time.sleep(0.001)
