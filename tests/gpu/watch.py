"""The device's figure from outside, while a container runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gpu.host import GpuHost


class Watch:
    """The most that a GPU gave while it was watched, in bytes, over what it gave before. The GPU is nobody else's."""

    def __init__(self, host: GpuHost, gpu: int = 0) -> None:
        self.host, self.gpu, self.most = host, gpu, 0
        self.before = self._settled()
        self._stop = threading.Event()

    def _settled(self) -> int:
        """What is in use once it no longer changes: the driver takes back a dead process's memory a little later."""
        last = -1
        for _ in range(50):
            used = self.host.used(self.gpu)
            if used == last:
                break
            last = used
            time.sleep(0.05)
        return last

    def look(self) -> None:
        while not self._stop.is_set():
            self.most = max(self.most, self.host.used(self.gpu) - self.before)
            time.sleep(0.002)

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self.look)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
