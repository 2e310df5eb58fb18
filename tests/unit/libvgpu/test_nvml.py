"""NVML shows the share."""

from __future__ import annotations

from tests.simgpu.abi import MIB
from tests.unit.libvgpu.place import CONTEXT, SHARES, Place, numbers, wait_for


def test_nvml_shows_the_share(place: Place) -> None:
    one = place.start("cudash", "primary", "alloc 100m", "device 1", "primary", "alloc 50m", "info", "hold")
    free = one.until("info").split()[-2]
    one.until("hold")
    ask = ("init", "device 0", "memory", "memory2", "device 1", "memory", "memory2")
    lines = numbers(place.run("nvmlsh", *ask))
    used = CONTEXT + 100 * MIB
    assert lines[2] == f"0 {SHARES[0]} {SHARES[0] - used} {used}"
    assert lines[3] == f"0 {SHARES[0]} {SHARES[0] - used} {used} 0"
    used = CONTEXT + 50 * MIB
    assert free == str(SHARES[1] - used)
    assert lines[5] == f"0 {SHARES[1]} {SHARES[1] - used} {used}"
    one.process.kill()
    wait_for(lambda: place.host.used(0) == 0)
    lines = numbers(place.run("nvmlsh", *ask))
    assert lines[2] == f"0 {SHARES[0]} {SHARES[0]} 0" and lines[5] == f"0 {SHARES[1]} {SHARES[1]} 0"
