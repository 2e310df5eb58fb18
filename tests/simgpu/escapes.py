"""The driver's ioctls: messages in, calls of the resource manager, messages out.

A call is told by number and size alone. What the resource manager refuses is a status in the message; the
ioctl itself fails only for a request that the driver doesn't know (EINVAL) or memory that can't be read.
"""

from __future__ import annotations

import errno
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from . import abi
from .config import CUDA_VERSION
from .processes import Process, pid_seen_by
from .resman import File, ResourceManager, RmError

CONTROL_PARAMS_MAX = 1 << 20
"""The driver takes no more parameters than this (its own bound is of that order)."""


class Memory(Protocol):
    """The caller's address space."""

    def read(self, address: int, size: int) -> bytearray:
        """Copy from there, or raise OSError."""

    def write(self, address: int, data: bytearray) -> None:
        """Copy there, or raise OSError."""


class Call:
    """One ioctl: the file it is made on, a copy of its message, and its caller."""

    def __init__(self, file: File, message: bytearray, memory: Memory, caller: Callable[[], Process]) -> None:
        self.file = file
        self.message = message
        self.memory = memory
        self.caller = caller


class Escapes:
    """The table of calls over one resource manager."""

    def __init__(self, manager: ResourceManager) -> None:
        self.manager = manager
        self.counts: Counter[str] = Counter()
        request = abi.request
        self._calls: dict[int, Callable[[Call], None]] = {
            request(abi.ESC_ALLOC, abi.ALLOC.size): self._alloc,
            request(abi.ESC_ALLOC, abi.ALLOC_OLD.size): self._alloc_old,
            request(abi.ESC_FREE, abi.FREE.size): self._free,
            request(abi.ESC_CONTROL, abi.CONTROL.size): self._control,
            request(abi.ESC_DUP_OBJECT, abi.DUP.size): self._duplicate,
            request(abi.ESC_ALLOC_MEMORY, abi.ALLOC_MEMORY.size): self._alloc_memory,
            request(abi.ESC_VID_HEAP_CONTROL, abi.VID_HEAP_SIZE): self._vid_heap_control,
            request(abi.ESC_XFER_CMD, abi.XFER.size): self._transfer,
            request(abi.ESC_MAP_MEMORY, 56): self._nothing,
            request(abi.ESC_UNMAP_MEMORY, 32): self._nothing,
            request(abi.ESC_REGISTER_FD, 4): self._nothing,
            request(abi.ESC_ALLOC_OS_EVENT, 16): self._nothing,
            request(abi.ESC_SYS_PARAMS, 8): self._nothing,
        }
        self._uvm_calls: dict[int, tuple[int, Callable[[Call], None]]] = {
            abi.UVM_INITIALIZE: (0, self._nothing),
            abi.UVM_MAP_EXTERNAL: (abi.SIM_UVM_MAP.size, self._uvm_map),
            abi.UVM_FREE: (abi.SIM_UVM_MAP.size, self._uvm_free),
            abi.SIM_UVM_MANAGED: (abi.SIM_UVM_MAP.size, self._uvm_managed),
        }
        self._controls: dict[int, Callable[[Call, bytearray], None]] = {
            abi.SIM_CTRL_SYSTEM: self._system,
            abi.SIM_CTRL_GPU: self._gpu,
            abi.SIM_CTRL_PROCESSES: self._processes,
            abi.SIM_CTRL_EXPORT: self._export,
            abi.SIM_CTRL_IMPORT: self._import,
        }

    def message_size(self, file: File, request: int) -> int:
        """How long the message of a (masked) request is. Raises OSError(EINVAL) for one that isn't known."""
        if file.node.startswith("nvidia-uvm"):
            if request in self._uvm_calls:
                return self._uvm_calls[request][0]
        elif request in self._calls:
            return request >> 16
        raise OSError(errno.EINVAL, f"no such request: {request:#x}")

    def run(self, request: int, call: Call) -> None:
        """Answer a call of a request that message_size() knows."""
        if call.file.node.startswith("nvidia-uvm"):
            self.counts[f"uvm {request & 0xFF:#04x}"] += 1
            self._uvm_calls[request][1](call)
        else:
            self.counts[f"{request & 0xFF:#04x}"] += 1
            self._calls[request](call)

    def _alloc(self, call: Call) -> None:
        root, parent, handle, cls, params, _, _, _, _ = abi.ALLOC.unpack(call.message)
        with _status(call.message, abi.ALLOC_STATUS):
            self._make(call, root, parent, handle, cls, params)

    def _alloc_old(self, call: Call) -> None:
        root, parent, handle, cls, params, _, _ = abi.ALLOC_OLD.unpack(call.message)
        with _status(call.message, abi.ALLOC_OLD_STATUS):
            self._make(call, root, parent, handle, cls, params)

    def _make(self, call: Call, root: int, parent: int, handle: int, cls: int, params: int) -> None:
        if cls in (abi.CLASS_ROOT, abi.CLASS_ROOT_CLIENT):
            handle = self.manager.new_client(call.file, handle, call.caller())
        else:
            argument = 0
            if cls == abi.CLASS_MEMORY_LOCAL_USER:
                (argument,) = abi.U64.unpack_from(call.memory.read(params, abi.MEMORY_PARAMS), abi.MEMORY_PARAMS_BYTES)
                if argument == 0:
                    raise RmError(abi.ERR_INVALID_ARGUMENT)
                self.counts["class 0x40"] += 1
            elif cls == abi.CLASS_DEVICE and params:
                (argument,) = abi.U32.unpack(call.memory.read(params, abi.U32.size))
            handle = self.manager.new_object(call.file, root, parent, handle, cls, argument)
        abi.U32.pack_into(call.message, abi.ALLOC_NEW_HANDLE, handle)

    def _alloc_memory(self, call: Call) -> None:
        root, parent, handle, cls, _, _, limit, _, _ = abi.ALLOC_MEMORY.unpack(call.message)
        with _status(call.message, abi.ALLOC_MEMORY_STATUS):
            if cls not in (abi.CLASS_MEMORY_LOCAL_USER, abi.CLASS_MEMORY_SYSTEM):
                raise RmError(abi.ERR_INVALID_CLASS)
            handle = self.manager.new_object(call.file, root, parent, handle, cls, limit + 1)
            abi.U32.pack_into(call.message, abi.ALLOC_NEW_HANDLE, handle)

    def _vid_heap_control(self, call: Call) -> None:
        root, parent, function, _ = abi.VID_HEAP_HEAD.unpack_from(call.message)
        with _status(call.message, abi.VID_HEAP_STATUS):
            if function != abi.VID_HEAP_ALLOC_SIZE:
                raise RmError(abi.ERR_INVALID_FUNCTION)
            (handle,) = abi.U32.unpack_from(call.message, abi.VID_HEAP_HANDLE)
            (size,) = abi.U64.unpack_from(call.message, abi.VID_HEAP_BYTES)
            cls = abi.CLASS_MEMORY_LOCAL_USER
            handle = self.manager.new_object(call.file, root, parent, handle, cls, size)
            abi.U32.pack_into(call.message, abi.VID_HEAP_HANDLE, handle)

    def _free(self, call: Call) -> None:
        root, _, handle, _ = abi.FREE.unpack(call.message)
        with _status(call.message, abi.FREE_STATUS):
            self.manager.free(call.file, root, handle)

    def _duplicate(self, call: Call) -> None:
        root, parent, handle, source_root, source, _, _ = abi.DUP.unpack(call.message)
        with _status(call.message, abi.DUP_STATUS):
            handle = self.manager.duplicate(call.file, root, parent, handle, (source_root, source))
            abi.U32.pack_into(call.message, abi.DUP_HANDLE, handle)

    def _transfer(self, call: Call) -> None:
        number, size, address = abi.XFER.unpack(call.message)
        inner = abi.request(number & 0xFF, size)
        if inner not in self._calls or number == abi.ESC_XFER_CMD:
            raise OSError(errno.EINVAL, f"no such carried request: {inner:#x}")
        carried = Call(call.file, call.memory.read(address, size), call.memory, call.caller)
        self.run(inner, carried)
        call.memory.write(address, carried.message)

    def _nothing(self, call: Call) -> None:
        """A call that succeeds and changes nothing that is simulated."""

    def _uvm_map(self, call: Call) -> None:
        base, _, root, handle, _ = abi.SIM_UVM_MAP.unpack(call.message)
        with _status(call.message, abi.SIM_UVM_STATUS):
            self.manager.map(call.file, base, (root, handle), call.caller())

    def _uvm_managed(self, call: Call) -> None:
        base, length, gpu, _, _ = abi.SIM_UVM_MAP.unpack(call.message)
        with _status(call.message, abi.SIM_UVM_STATUS):
            self.manager.managed(call.file, base, length, gpu, call.caller())

    def _uvm_free(self, call: Call) -> None:
        base, _, _, _, _ = abi.SIM_UVM_MAP.unpack(call.message)
        with _status(call.message, abi.SIM_UVM_STATUS):
            self.manager.unmap(call.file, base)

    def _control(self, call: Call) -> None:
        _, _, command, _, address, size, _ = abi.CONTROL.unpack(call.message)
        with _status(call.message, abi.CONTROL_STATUS):
            control = self._controls.get(command)
            if control is None:
                raise RmError(abi.ERR_INVALID_COMMAND)
            if size > CONTROL_PARAMS_MAX:
                raise RmError(abi.ERR_INVALID_PARAM_STRUCT)
            params = call.memory.read(address, size)
            try:
                control(call, params)
            except struct.error:
                raise RmError(abi.ERR_INVALID_PARAM_STRUCT) from None
            call.memory.write(address, params)

    def _system(self, call: Call, params: bytearray) -> None:
        version = self.manager.host.driver_version.encode()
        abi.SIM_SYSTEM.pack_into(params, 0, version, len(self.manager.gpus), CUDA_VERSION)

    def _gpu(self, call: Call, params: bytearray) -> None:
        gpu = self.manager.gpu(abi.U32.unpack_from(params)[0])
        config, model = gpu.config, gpu.config.model
        abi.SIM_GPU.pack_into(
            params, 0, config.index, config.index, 0, config.bus, 0, model.architecture, *model.capability,
            model.brand, model.watts, model.fan_percent, model.ecc, config.name.encode(), config.uuid.encode(),
            config.total, config.reserved, gpu.used, config.context, gpu.unlisted_of_context,
        )  # fmt: skip

    def _processes(self, call: Call, params: bytearray) -> None:
        index, capacity = abi.SIM_PROCESSES.unpack_from(params)
        gpu, caller = self.manager.gpu(index), call.caller()
        seen = [
            (pid, gpu.listed[owner])
            for owner in gpu.owners()
            if isinstance(owner, Process) and (pid := pid_seen_by(owner, caller)) is not None
        ]
        abi.SIM_PROCESSES.pack_into(params, 0, index, len(seen))
        for place, (pid, size) in enumerate(seen[:capacity]):
            abi.SIM_PROCESS.pack_into(params, abi.SIM_PROCESSES.size + place * abi.SIM_PROCESS.size, pid, size)

    def _export(self, call: Call, params: bytearray) -> None:
        root, handle, _, _ = abi.SIM_SHARE.unpack_from(params)
        self.manager.export(call.file, (root, handle), call.caller())

    def _import(self, call: Call, params: bytearray) -> None:
        root, parent, handle, _ = abi.SIM_SHARE.unpack_from(params)
        handle, memory = self.manager.import_(call.file, (root, parent, handle), call.caller())
        abi.SIM_SHARE.pack_into(params, 0, root, memory.gpu.config.index, handle, memory.size // abi.GRANULE)


@contextmanager
def _status(message: bytearray, offset: int) -> Iterator[None]:
    """Put how the body ends into the message's status."""
    status = abi.OK
    try:
        yield
    except RmError as error:
        status = error.status
    except OSError:
        # The driver answers so for parameters that it can't copy.
        status = abi.ERR_INVALID_ADDRESS
    abi.U32.pack_into(message, offset, status)
