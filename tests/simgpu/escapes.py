"""The driver's ioctls: messages in, calls of the resource manager, messages out.

A call is told by number and size alone. What the resource manager refuses is a status in the message; the
ioctl itself fails only for a request that the driver doesn't know (EINVAL) or memory that can't be read.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import abi
from .call import Call
from .controls import Controls
from .physical import RmError, rounded
from .resman import File, ResourceManager

CONTROL_PARAMS_MAX = 1 << 20
"""The driver takes no more parameters than this (its own bound is of that order)."""


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
        self._controls = Controls(manager)

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
        elif cls in (abi.CLASS_MEMORY_LOCAL_USER, abi.CLASS_MEMORY_LOCAL_PHYSICAL):
            handle = self._make_memory(call, root, parent, handle, cls, params)
        else:
            if cls == abi.CLASS_OS_DESCRIPTOR and not call.by_administrator():
                raise RmError(abi.ERR_PERMISSIONS)
            argument = 0
            if cls == abi.CLASS_DEVICE and params:
                (argument,) = abi.U32.unpack(call.memory.read(params, abi.U32.size))
            elif cls == abi.CLASS_CHANNEL_GROUP:
                (argument,) = abi.U32.unpack_from(call.memory.read(params, abi.GROUP_PARAMS), abi.GROUP_ENGINE)
            elif cls == abi.CLASS_CHANNEL:
                (argument,) = abi.U32.unpack_from(call.memory.read(params, abi.CHANNEL_PARAMS), abi.CHANNEL_ENGINE)
            handle = self.manager.new_object(call.file, root, parent, handle, cls, argument)
        abi.U32.pack_into(call.message, abi.ALLOC_NEW_HANDLE, handle)

    def _make_memory(self, call: Call, root: int, parent: int, handle: int, cls: int, address: int) -> int:
        """Device memory. (Here the physical class has the parameters of the other, and takes as much.)"""
        # The class's size, whatever paramsSize says.
        params = call.memory.read(address, abi.MEMORY_PARAMS)
        (size,) = abi.U64.unpack_from(params, abi.MEMORY_PARAMS_BYTES)
        if size == 0:
            raise RmError(abi.ERR_INVALID_ARGUMENT)
        if cls == abi.CLASS_MEMORY_LOCAL_PHYSICAL and not call.by_administrator():
            raise RmError(abi.ERR_PERMISSIONS)
        self.counts[f"class {cls:#x}"] += 1
        handle = self.manager.new_object(call.file, root, parent, handle, cls, size)
        abi.U64.pack_into(params, abi.MEMORY_PARAMS_BYTES, rounded(size))
        try:
            call.memory.write(address, params)
        except OSError:
            self.manager.free(call.file, root, handle)
            raise
        return handle

    def _alloc_memory(self, call: Call) -> None:
        """Of the device's memory this only tells the size, with a handle that stands for nothing."""
        root, parent, handle, cls, _, _, _, _, _ = abi.ALLOC_MEMORY.unpack(call.message)
        with _status(call.message, abi.ALLOC_MEMORY_STATUS):
            if cls not in (abi.CLASS_MEMORY_LOCAL_USER, abi.CLASS_MEMORY_SYSTEM):
                raise RmError(abi.ERR_INVALID_CLASS)
            handle = self.manager.new_object(call.file, root, parent, handle, abi.CLASS_MEMORY_SYSTEM, 0)
            gpu = self.manager.object(call.file, root, handle).gpu
            if cls == abi.CLASS_MEMORY_LOCAL_USER and gpu is not None:
                abi.U64.pack_into(call.message, abi.ALLOC_MEMORY_LIMIT, gpu.config.total - 1)
            abi.U32.pack_into(call.message, abi.ALLOC_NEW_HANDLE, handle)

    def _vid_heap_control(self, call: Call) -> None:
        root, parent, function, _ = abi.VID_HEAP_HEAD.unpack_from(call.message)
        with _status(call.message, abi.VID_HEAP_STATUS):
            (handle,) = abi.U32.unpack_from(call.message, abi.VID_HEAP_HANDLE)
            if function == abi.VID_HEAP_FREE:
                self.manager.free(call.file, root, handle)
                return
            if function not in (abi.VID_HEAP_ALLOC_SIZE, abi.VID_HEAP_ALLOC_RANGE):
                raise RmError(abi.ERR_INVALID_FUNCTION)
            at = abi.VID_HEAP_BYTES if function == abi.VID_HEAP_ALLOC_SIZE else abi.VID_HEAP_RANGE_BYTES
            (size,) = abi.U64.unpack_from(call.message, at)
            cls = abi.CLASS_MEMORY_LOCAL_USER
            handle = self.manager.new_object(call.file, root, parent, handle, cls, size)
            abi.U32.pack_into(call.message, abi.VID_HEAP_HANDLE, handle)
            abi.U64.pack_into(call.message, at, rounded(size))

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
        carried = Call(call.file, call.memory.read(address, size), call.memory, call.caller, call.thread)
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
        root, handle, command, _, address, size, _ = abi.CONTROL.unpack(call.message)
        with _status(call.message, abi.CONTROL_STATUS):
            if size > CONTROL_PARAMS_MAX:
                raise RmError(abi.ERR_INVALID_PARAM_STRUCT)
            params = call.memory.read(address, size)
            self._controls.run(call, root, handle, command, params)
            call.memory.write(address, params)


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
