"""The simulated GPUs' physical memory: how much is taken, by whom, and what NVML counts of it. Bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from . import abi
from .config import GpuConfig

HIDDEN_OF_CONTEXT = 8 * abi.MIB
HIDDEN_OF_PROCESS = abi.GRANULE
"""What a context takes that user space never asks for and NVML counts for no process (measured: 526 of 518), and what a
process takes so once, with its first context (measured: 0.8 MiB, here a whole block)."""


class RmError(Exception):
    """A call that the resource manager refuses. Its one argument is the status for the message."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def rounded(size: int) -> int:
    """The bytes that the device gives for an allocation of so many."""
    return -(-size // abi.GRANULE) * abi.GRANULE


class Gpu:
    """One GPU's physical memory, in bytes."""

    def __init__(self, config: GpuConfig) -> None:
        self.config = config
        self.capacity = config.total - config.reserved
        self.used = 0
        self.listed: Counter[Hashable] = Counter()
        self.alone: Counter[Hashable] = Counter()
        """Of what is listed: what only that process's handle holds."""
        self.taken: Counter[Hashable] = Counter()
        self.contexts: Counter[Hashable] = Counter()
        self._of_processes: dict[Hashable, Memory] = {}

    @property
    def unlisted_of_context(self) -> int:
        """The part of a bare context's cost that user space doesn't ask for."""
        return min(HIDDEN_OF_CONTEXT + HIDDEN_OF_PROCESS, self.config.context)

    def take_context(self, owner: Hashable) -> Memory:
        """What comes with a context's object. Raises RmError where there isn't as much."""
        of_process = min(HIDDEN_OF_PROCESS, self.unlisted_of_context)
        if owner not in self._of_processes:
            self._of_processes[owner] = self.take(of_process, owner, listed=False)
        self.contexts[owner] += 1
        try:
            return self.take(self.unlisted_of_context - of_process, owner, listed=False)
        except RmError:
            self.end_context(owner)
            raise

    def end_context(self, owner: Hashable) -> None:
        """A context of `owner` has ended: with the last one, what the process took goes too."""
        _less(self.contexts, owner, 1)
        if owner not in self.contexts:
            self._of_processes.pop(owner).drop()

    def take(self, size: int, owner: Hashable, *, listed: bool = True) -> Memory:
        """Take `size` bytes, rounded up to granules, for `owner`. Raises RmError where there isn't as much."""
        size = rounded(size)
        if self.used + size > self.capacity:
            raise RmError(abi.ERR_NO_MEMORY)
        self.used += size
        self.taken[owner] += size
        return Memory(self, size, owner, listed).hold(owner if listed else None)

    def owners(self) -> list[Hashable]:
        """Whom NVML lists: those who have a context or memory that it counts."""
        return [owner for owner in self.taken if self.contexts[owner] > 0 or self.listed[owner] > 0]


class Memory:
    """Physical memory, until its last reference is dropped.

    The figure of a process has it only by handles: its owner's; without that, those of the only one that is left with
    it (seen on an H100: memory that only a mapping or an exported file holds is in no figure).
    """

    def __init__(self, gpu: Gpu, size: int, owner: Hashable, listed: bool) -> None:
        self.gpu, self.size, self.owner = gpu, size, owner
        self._may_be_listed = listed
        self._handles: list[Hashable] = []
        self._others = 0
        self._listed_to: Hashable | None = None
        self._alone = False

    def hold(self, handle_of: Hashable | None = None) -> Memory:
        """One more reference: a handle of that process, or something else."""
        if handle_of is None:
            self._others += 1
        else:
            self._handles.append(handle_of)
        self._list()
        return self

    def drop(self, handle_of: Hashable | None = None) -> None:
        """One reference less; the last one gives the bytes back."""
        if handle_of is None:
            self._others -= 1
        else:
            self._handles.remove(handle_of)
        self._list()
        if not self._handles and not self._others:
            self.gpu.used -= self.size
            _less(self.gpu.taken, self.owner, self.size)

    def _list(self) -> None:
        to = None
        if self._may_be_listed and self.owner in self._handles:
            to = self.owner
        elif self._may_be_listed and len(self._handles) == 1 and not self._others:
            to = self._handles[0]
        alone = to is not None and len(self._handles) == 1 and not self._others
        if (to, alone) == (self._listed_to, self._alone):
            return
        if self._listed_to is not None:
            _less(self.gpu.listed, self._listed_to, self.size)
        if self._alone:
            _less(self.gpu.alone, self._listed_to, self.size)
        if to is not None:
            self.gpu.listed[to] += self.size
        if alone:
            self.gpu.alone[to] += self.size
        self._listed_to, self._alone = to, alone


def _less(counter: Counter[Hashable], key: Hashable, amount: int) -> None:
    counter[key] -= amount
    if counter[key] == 0:
        del counter[key]
