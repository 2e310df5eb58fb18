"""The resource manager alone: who holds which memory, and until when."""

from __future__ import annotations

import pytest

from tests.simgpu import abi
from tests.simgpu.config import HostConfig
from tests.simgpu.physical import RmError
from tests.simgpu.resman import File, ResourceManager
from tests.unit.simgpu.program import MIB


def manager(mib: int = 100, context: int = 0) -> tuple[ResourceManager, File, int, int]:
    gpu = {"memory_mib": mib, "reserved_mib": 0, "context_mib": context}
    rm = ResourceManager(HostConfig.parse({"gpus": [gpu]}))
    file = File("nvidiactl", "one")
    root = rm.new_client(file, 0, "one")
    return rm, file, root, rm.new_object(file, root, root, 0, abi.CLASS_DEVICE, 0)


@pytest.mark.parametrize(("asked", "taken"), [(1, 2), (2 * MIB, 2), (3 * MIB, 4), (MIB + 1, 2), (64 * MIB, 64)])
def test_physical_memory_is_taken_in_granules(asked: int, taken: int) -> None:
    rm, file, root, device = manager()
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, asked)
    assert rm.gpus[0].used == taken * MIB


def test_past_the_pool_is_no_memory_and_takes_nothing() -> None:
    rm, file, root, device = manager(10)
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    with pytest.raises(RmError) as refused:
        rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 4 * MIB)
    assert refused.value.status == abi.ERR_NO_MEMORY
    assert rm.gpus[0].used == 8 * MIB


def test_system_memory_is_not_charged() -> None:
    rm, file, root, device = manager()
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_SYSTEM, 64 * MIB)
    assert rm.gpus[0].used == 0


def test_freeing_a_parent_frees_its_children() -> None:
    rm, file, root, device = manager()
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    rm.free(file, root, device)
    assert rm.gpus[0].used == 0
    with pytest.raises(RmError):
        rm.free(file, root, memory)


@pytest.mark.parametrize("first", ["original", "duplicate"])
def test_a_duplicate_keeps_its_memory(first: str) -> None:
    rm, file, root, device = manager()
    other = File("nvidiactl", "one")
    other_root = rm.new_client(other, 0, "one")
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    rm.duplicate(other, other_root, other_root, 0, (root, memory))
    rm.close(file if first == "original" else other)
    assert rm.gpus[0].used == 8 * MIB
    rm.close(other if first == "original" else file)
    assert rm.gpus[0].used == 0


def test_a_mapping_keeps_its_memory() -> None:
    rm, file, root, device = manager()
    uvm = File("nvidia-uvm", "one")
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    rm.map(uvm, 0x1000, (root, memory), "one")
    rm.free(file, root, memory)
    assert rm.gpus[0].used == 8 * MIB
    rm.unmap(uvm, 0x1000)
    assert rm.gpus[0].used == 0


def test_what_a_file_carries_outlives_its_maker() -> None:
    rm, file, root, device = manager()
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    passed = File("nvidiactl", "one")
    rm.export(passed, (root, memory), "one")
    rm.close(file)
    assert rm.gpus[0].used == 8 * MIB
    taker = File("nvidiactl", "two")
    taker_root = rm.new_client(taker, 0, "two")
    rm.import_(passed, (taker_root, taker_root, 0), "two")
    rm.close(passed)
    assert rm.gpus[0].used == 8 * MIB
    rm.close(taker)
    assert rm.gpus[0].used == 0


def test_a_client_is_of_its_file_alone() -> None:
    rm, _file, root, device = manager()
    stranger = File("nvidiactl", "two")
    with pytest.raises(RmError) as refused:
        rm.new_object(stranger, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, MIB)
    assert refused.value.status == abi.ERR_INVALID_CLIENT
    stranger_root = rm.new_client(stranger, 0, "two")
    with pytest.raises(RmError) as refused:
        rm.duplicate(stranger, stranger_root, stranger_root, 0, (root, device))
    assert refused.value.status == abi.ERR_PERMISSIONS


def test_nvml_leaves_out_part_of_a_context_and_managed_memory() -> None:
    rm, file, root, device = manager(context=20)
    rm.new_object(file, root, device, 0, abi.CLASS_CHANNEL_GROUP, abi.ENGINE_GRAPHICS)
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 12 * MIB)
    rm.managed(File("nvidia-uvm", "one"), 0x1000, 6 * MIB, 0, "one")
    assert rm.gpus[0].used == 28 * MIB
    assert rm.gpus[0].listed["one"] == 12 * MIB


def test_what_a_process_takes_besides_its_contexts_comes_and_goes_once() -> None:
    rm, file, root, device = manager(context=20)
    first = rm.new_object(file, root, device, 0, abi.CLASS_CHANNEL_GROUP, abi.ENGINE_GRAPHICS)
    second = rm.new_object(file, root, device, 0, abi.CLASS_CHANNEL_GROUP, abi.ENGINE_GRAPHICS)
    assert rm.gpus[0].used == (2 + 8 + 8) * MIB and not rm.gpus[0].listed
    rm.free(file, root, first)
    assert rm.gpus[0].used == (2 + 8) * MIB
    rm.free(file, root, second)
    assert rm.gpus[0].used == 0 and rm.gpus[0].owners() == []


@pytest.mark.parametrize(
    "config",
    [{"gpu": []}, {"gpus": [{"memory": 1}]}, {"gpus": [{"memory_mib": 1, "reserved_mib": 2}]},
     {"gpus": [{"uuid": "a"}, {"uuid": "a"}]}],
)  # fmt: skip
def test_a_faulty_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="simgpu:"):
        HostConfig.parse(config)
