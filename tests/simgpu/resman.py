"""The simulated resource manager: clients, objects, and physical memory. No I/O, so that tests can drive it.

Memory belongs to references, and references to files: an object, a mapping and what a file carries for
another process each hold one. Closing a file takes its clients away, and the last reference gives the bytes
back, so a process that is gone keeps its memory for as long as anyone has its file open.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from . import abi
from .config import HostConfig
from .physical import Gpu, Memory, RmError

CONTEXTS = (abi.CLASS_CHANNEL_GROUP, abi.CLASS_CHANNEL)


@dataclass(eq=False)
class Object:
    """What a handle of a client stands for."""

    cls: int
    parent: Object | None
    gpu: Gpu | None = None
    memory: Memory | None = None
    children: dict[int, Object] = field(default_factory=dict)

    def tree(self) -> Iterator[tuple[int, Object]]:
        """Everything below, by handle."""
        for handle, child in self.children.items():
            yield handle, child
            yield from child.tree()


@dataclass(eq=False)
class Client(Object):
    """The root of a tree of objects. Whoever made it is who its memory is listed for."""

    owner: Hashable = None
    objects: dict[int, Object] = field(default_factory=dict)


@dataclass(eq=False)
class File:
    """An open device file, however many descriptors in however many processes there are for it."""

    node: str
    owner: Hashable
    clients: dict[int, Client] = field(default_factory=dict)
    mappings: dict[int, Memory] = field(default_factory=dict)
    carries: Memory | None = None


def is_group(cls: int, above: Object) -> bool:
    """A channel outside of a group gets one of its own."""
    return cls == abi.CLASS_CHANNEL_GROUP or (cls == abi.CLASS_CHANNEL and above.cls != abi.CLASS_CHANNEL_GROUP)


class ResourceManager:
    """The machine: its GPUs and who holds what of them."""

    def __init__(self, host: HostConfig) -> None:
        self.host = host
        self.gpus = [Gpu(gpu) for gpu in (*host.gpus, *host.instances)]
        self._clients: dict[int, tuple[File, Client]] = {}
        self._handles = itertools.count(0xC1D00001)

    def gpu(self, index: int) -> Gpu:
        """The GPU of that index."""
        if not 0 <= index < len(self.gpus):
            raise RmError(abi.ERR_INVALID_DEVICE)
        return self.gpus[index]

    def close(self, file: File) -> None:
        """The last descriptor of a file is gone."""
        for handle in list(file.clients):
            self._free_client(file, handle)
        for memory in file.mappings.values():
            memory.drop()
        file.mappings.clear()
        if file.carries is not None:
            file.carries.drop()
            file.carries = None

    def new_client(self, file: File, handle: int, owner: Hashable) -> int:
        """A root client, of the handle that the caller wants or, with 0, of the next one."""
        handle = handle or next(self._handles)
        if handle in self._clients:
            raise RmError(abi.ERR_DUPLICATE_NAME)
        client = Client(abi.CLASS_ROOT_CLIENT, None, owner=owner)
        file.clients[handle] = client
        self._clients[handle] = file, client
        return handle

    def client(self, file: File, handle: int) -> Client:
        """A client, which only the file that it was made through may use."""
        if (client := file.clients.get(handle)) is None:
            raise RmError(abi.ERR_INVALID_CLIENT)
        return client

    def object(self, file: File, root: int, handle: int) -> Object:
        """What a handle of a client stands for; the client's own is the client."""
        client = self.client(file, root)
        found = client if handle == root else client.objects.get(handle)
        if found is None:
            raise RmError(abi.ERR_INVALID_OBJECT_HANDLE)
        return found

    def owners_with(self, gpu: Gpu, cls: int) -> list[Hashable]:
        """Who has an object of that class on that GPU, each once."""
        has = (
            client.owner
            for _, client in self._clients.values()
            if any(item.cls == cls and item.gpu is gpu for item in client.objects.values())
        )
        return list(dict.fromkeys(has))

    def new_object(self, file: File, root: int, parent: int, handle: int, cls: int, argument: int) -> int:
        """Make an object. `argument` is the size of a memory class, the device's number of a device, the engine of a
        group of channels or a channel. For those of the graphics engine the device gives a context's part, which a
        channel in a group has from that.
        """
        client = self.client(file, root)
        above = self._parent(client, root, parent)
        gpu, memory = above.gpu, None
        if cls == abi.CLASS_DEVICE:
            gpu = self.gpu(argument)
        elif cls in (abi.CLASS_MEMORY_LOCAL_USER, abi.CLASS_MEMORY_LOCAL_PHYSICAL):
            memory = self._on(gpu).take(argument, client.owner)
        elif cls == abi.CLASS_CONTEXT and above.cls != abi.CLASS_CHANNEL_GROUP:
            raise RmError(abi.ERR_INVALID_PARENT)
        elif is_group(cls, above) and argument == abi.ENGINE_GRAPHICS:
            gpu = self._on(gpu)
            memory = gpu.take_context(client.owner)
        try:
            return self._add(client, above, handle, Object(cls, above, gpu, memory))
        except RmError:
            self._let_go(client, Object(cls, above, gpu, memory))
            raise

    def duplicate(self, file: File, root: int, parent: int, handle: int, source: tuple[int, int]) -> int:
        """A second object for the memory of `source` (client, object), a client of the same process."""
        client = self.client(file, root)
        other = self._clients.get(source[0])
        if other is None:
            raise RmError(abi.ERR_INVALID_CLIENT)
        if other[0] is not file and other[1].owner != client.owner:
            raise RmError(abi.ERR_PERMISSIONS)
        memory = self._memory(other[1], source[1])
        return self._add_reference(client, self._parent(client, root, parent), handle, memory)

    def export(self, file: File, source: tuple[int, int], owner: Hashable) -> None:
        """Let `file` carry memory of the owner's client to whoever gets its descriptor."""
        other = self._clients.get(source[0])
        if other is None or other[1].owner != owner:
            raise RmError(abi.ERR_INVALID_CLIENT)
        memory = self._memory(other[1], source[1]).hold()
        if file.carries is not None:
            file.carries.drop()
        file.carries = memory

    def import_(self, file: File, target: tuple[int, int, int], owner: Hashable) -> tuple[int, Memory]:
        """An object (client, parent, handle) of the owner's for what `file` carries, and that."""
        other = self._clients.get(target[0])
        if other is None or other[1].owner != owner:
            raise RmError(abi.ERR_INVALID_CLIENT)
        if file.carries is None:
            raise RmError(abi.ERR_NOT_FOUND)
        client = other[1]
        above = self._parent(client, target[0], target[1])
        return self._add_reference(client, above, target[2], file.carries), file.carries

    def free(self, file: File, root: int, handle: int) -> None:
        """Free an object and what lies below it; a client's own handle frees the client."""
        client = self.client(file, root)
        if handle == root:
            self._free_client(file, handle)
            return
        target = client.objects.get(handle)
        if target is None:
            raise RmError(abi.ERR_NOT_FOUND)
        for below, item in list(target.tree()):
            del client.objects[below]
            self._let_go(client, item)
        del client.objects[handle]
        if target.parent is not None:
            del target.parent.children[handle]
        self._let_go(client, target)

    def map(self, file: File, base: int, source: tuple[int, int], owner: Hashable) -> None:
        """A mapping by nvidia-uvm: holds the memory until it is unmapped or the file closed."""
        other = self._clients.get(source[0])
        if other is None or other[1].owner != owner:
            raise RmError(abi.ERR_INVALID_CLIENT)
        self._add_mapping(file, base, self._memory(other[1], source[1]).hold())

    def managed(self, file: File, base: int, length: int, gpu: int, owner: Hashable) -> None:
        """Managed memory: on a real host placed when touched, here taken at once; in nobody's NVML figure."""
        self._add_mapping(file, base, self.gpu(gpu).take(length, owner, listed=False))

    def unmap(self, file: File, base: int) -> None:
        """Take a mapping away."""
        memory = file.mappings.pop(base, None)
        if memory is None:
            raise RmError(abi.ERR_INVALID_ADDRESS)
        memory.drop()

    def _add_mapping(self, file: File, base: int, memory: Memory) -> None:
        if base in file.mappings:
            memory.drop()
            raise RmError(abi.ERR_INVALID_ADDRESS)
        file.mappings[base] = memory

    def _free_client(self, file: File, handle: int) -> None:
        client = file.clients.pop(handle)
        del self._clients[handle]
        for item in client.objects.values():
            self._let_go(client, item)

    @staticmethod
    def _let_go(client: Client, item: Object) -> None:
        if item.memory is not None:
            item.memory.drop(None if item.cls in CONTEXTS else client.owner)
        if item.cls in CONTEXTS and item.memory is not None:
            item.memory.gpu.end_context(client.owner)

    @staticmethod
    def _parent(client: Client, root: int, handle: int) -> Object:
        parent = client if handle == root else client.objects.get(handle)
        if parent is None:
            raise RmError(abi.ERR_INVALID_PARENT)
        return parent

    @staticmethod
    def _memory(client: Client, handle: int) -> Memory:
        item = client.objects.get(handle)
        if item is None or item.memory is None:
            raise RmError(abi.ERR_NOT_FOUND)
        return item.memory

    @staticmethod
    def _on(gpu: Gpu | None) -> Gpu:
        if gpu is None:
            raise RmError(abi.ERR_INVALID_PARENT)
        return gpu

    def _add_reference(self, client: Client, above: Object, handle: int, memory: Memory) -> int:
        item = Object(abi.CLASS_MEMORY_LOCAL_USER, above, memory.gpu, memory)
        handle = self._add(client, above, handle, item)
        memory.hold(client.owner)
        return handle

    def _add(self, client: Client, above: Object, handle: int, item: Object) -> int:
        handle = handle or next(self._handles)
        if handle in client.objects or handle in self._clients:
            raise RmError(abi.ERR_DUPLICATE_NAME)
        client.objects[handle] = item
        above.children[handle] = item
        return handle
