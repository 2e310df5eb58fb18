"""Control commands: the driver's own that an agent or NVML needs, and the simulator's.

The driver's want parameters of exactly their size, and go to an object: a client, or a subdevice, which tells the GPU.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from . import abi
from .call import Call
from .config import CUDA_VERSION
from .physical import Gpu, RmError
from .processes import Process, pid_seen_by
from .resman import ResourceManager

KIB = 1 << 10


class Controls:
    """The table of commands over one resource manager."""

    def __init__(self, manager: ResourceManager) -> None:
        self.manager = manager
        self._own: dict[int, Callable[[Call, bytearray], None]] = {
            abi.SIM_CTRL_SYSTEM: self._system,
            abi.SIM_CTRL_GPU: self._gpu,
            abi.SIM_CTRL_PROCESSES: self._processes,
            abi.SIM_CTRL_EXPORT: self._export,
            abi.SIM_CTRL_IMPORT: self._import,
            abi.SIM_CTRL_MIG: self._mig,
        }
        self._of_subdevice: dict[int, tuple[int, Callable[[Call, Gpu, bytearray], None]]] = {
            abi.CTRL_GPU_GET_PIDS: (abi.PIDS.size, self._pids),
            abi.CTRL_GPU_GET_PID_INFO: (abi.PID_INFO_PARAMS, self._pid_info),
            abi.CTRL_FB_GET_INFO_V2: (abi.FB_INFO_PARAMS, self._fb_info),
        }

    def run(self, call: Call, root: int, handle: int, command: int, params: bytearray) -> None:
        """Answer a command to an object of a client, in its parameters. Raises RmError."""
        if command in self._own:
            try:
                self._own[command](call, params)
            except struct.error:
                raise RmError(abi.ERR_INVALID_PARAM_STRUCT) from None
        elif command == abi.CTRL_GPU_GET_UUID_INFO:
            if self.manager.object(call.file, root, handle).cls != abi.CLASS_ROOT_CLIENT:
                raise RmError(abi.ERR_INVALID_COMMAND)
            _want(params, abi.UUID_INFO.size)
            self._uuid_info(params)
        elif command in self._of_subdevice:
            subdevice = self.manager.object(call.file, root, handle)
            if subdevice.cls != abi.CLASS_SUBDEVICE or subdevice.gpu is None:
                raise RmError(abi.ERR_INVALID_COMMAND)
            size, answer = self._of_subdevice[command]
            _want(params, size)
            answer(call, subdevice.gpu, params)
        else:
            raise RmError(abi.ERR_INVALID_COMMAND)

    def _uuid_info(self, params: bytearray) -> None:
        uuid, flags, _, _, _ = abi.UUID_INFO.unpack(params)
        if flags != 0:
            raise RmError(abi.ERR_INVALID_ARGUMENT)
        wanted = uuid.split(b"\0")[0].decode("ascii", "replace")
        for gpu in self.manager.gpus:
            if gpu.config.uuid == wanted:
                abi.UUID_INFO.pack_into(params, 0, uuid, flags, gpu.config.bus << 8, gpu.config.index, 0)
                return
        raise RmError(abi.ERR_NOT_FOUND)

    def _pids(self, call: Call, gpu: Gpu, params: bytearray) -> None:
        kind, cls = struct.unpack_from("<II", params)
        if kind != abi.PIDS_OF_CLASS:
            raise RmError(abi.ERR_INVALID_ARGUMENT)
        # The driver lists for any other class whoever has a context.
        wanted = abi.CLASS_SUBDEVICE if cls == abi.CLASS_SUBDEVICE else abi.CLASS_CHANNEL_GROUP
        pids = [pid for pid, _ in _seen(self.manager.owners_with(gpu, wanted), call)][: abi.PIDS_MAX]
        abi.PIDS.pack_into(params, 0, kind, cls, len(pids), *pids, *[0] * (abi.PIDS_MAX - len(pids)))

    def _pid_info(self, call: Call, gpu: Gpu, params: bytearray) -> None:
        """A pid that the caller doesn't see, or that holds nothing, is answered with success and no bytes."""
        (count,) = abi.U32.unpack_from(params)
        if not 1 <= count <= abi.PID_INFO_MAX:
            raise RmError(abi.ERR_INVALID_ARGUMENT)
        held = {
            pid: (gpu.alone[owner], gpu.listed[owner] - gpu.alone[owner]) for pid, owner in _seen(gpu.owners(), call)
        }
        for place in range(count):
            offset = abi.PID_INFO_FIRST + place * abi.PID_INFO.size
            pid, index = struct.unpack_from("<II", params, offset)
            right = pid != 0 and index == abi.PID_INFO_VIDEO_MEMORY
            result = abi.OK if right else abi.ERR_INVALID_ARGUMENT
            alone, shared = held.get(pid, (0, 0)) if right else (0, 0)
            abi.PID_INFO.pack_into(params, offset, pid, index, result, alone, shared, 0)

    def _fb_info(self, _call: Call, gpu: Gpu, params: bytearray) -> None:
        (count,) = abi.U32.unpack_from(params)
        if count > abi.FB_INFO_MAX:
            raise RmError(abi.ERR_INVALID_ARGUMENT)
        known = {abi.FB_RAM_SIZE: gpu.config.total, abi.FB_HEAP_FREE: gpu.capacity - gpu.used}
        for place in range(count):
            offset = abi.U32.size + place * abi.FB_INFO.size
            index, _ = abi.FB_INFO.unpack_from(params, offset)
            if index not in known:
                raise RmError(abi.ERR_INVALID_ARGUMENT)
            abi.FB_INFO.pack_into(params, offset, index, known[index] // KIB)

    def _system(self, call: Call, params: bytearray) -> None:
        version = self.manager.host.driver_version.encode()
        abi.SIM_SYSTEM.pack_into(params, 0, version, len(self.manager.host.gpus), CUDA_VERSION)

    def _gpu(self, call: Call, params: bytearray) -> None:
        gpu = self.manager.gpu(abi.U32.unpack_from(params)[0])
        config, model = gpu.config, gpu.config.model
        used = sum(part.used for part in (gpu, *self._parts(gpu)))
        abi.SIM_GPU.pack_into(
            params, 0, config.index, config.minor, 0, config.bus, 0, model.architecture, *model.capability,
            model.brand, model.watts, model.fan_percent, model.ecc, config.name.encode(), config.uuid.encode(),
            config.total, config.reserved, used, config.context, gpu.unlisted_of_context,
            config.speed,
        )  # fmt: skip

    def _board(self, gpu: Gpu) -> Gpu:
        """The GPU that an instance is a part of; any other is itself."""
        return gpu if gpu.config.instance is None else self.manager.gpus[gpu.config.instance.gpu]

    def _parts(self, gpu: Gpu) -> list[Gpu]:
        return [part for part in self.manager.gpus if part is not gpu and self._board(part) is gpu]

    def _mig(self, call: Call, params: bytearray) -> None:
        gpu = self.manager.gpu(abi.U32.unpack_from(params)[0])
        board, instance = self._board(gpu).config, gpu.config.instance
        whole = int(call.by_administrator())
        ids = (0, 0, 0, 0)
        if instance is not None:
            ids = (instance.gpu_instance, instance.compute_instance, *self.manager.host.cap_minors(instance))
        abi.SIM_MIG.pack_into(
            params, 0, gpu.config.index, int(gpu.config.mig), whole, board.index, *ids, len(self.manager.gpus),
            board.uuid.encode(),
        )  # fmt: skip

    def _processes(self, call: Call, params: bytearray) -> None:
        index, capacity = abi.SIM_PROCESSES.unpack_from(params)
        whole = self.manager.gpu(index)
        seen = [
            (pid, gpu.listed[owner]) for gpu in (whole, *self._parts(whole)) for pid, owner in _seen(gpu.owners(), call)
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


def _want(params: bytearray, size: int) -> None:
    if len(params) != size:
        raise RmError(abi.ERR_INVALID_PARAM_STRUCT)


def _seen(owners: Iterable[object], call: Call) -> list[tuple[int, Process]]:
    """Processes with their pids as the caller sees them; those that it doesn't see are left out."""
    caller = call.caller()
    return [
        (pid, owner)
        for owner in owners
        if isinstance(owner, Process) and (pid := pid_seen_by(owner, caller)) is not None
    ]
