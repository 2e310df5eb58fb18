"""Every call: the account follows what the driver gave."""

from __future__ import annotations

import pytest

from tests.simgpu.abi import MIB
from tests.unit.libvgpu.place import CONTEXT, GOOD, OUT, SHARES, UUIDS, Place, numbers

CASES = "linear packed limit odd_arguments version_1 contexts two_gpus pools vmm outside small_stacks".split()


@pytest.mark.parametrize("build", ["asan", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_account_follows_the_driver(place: Place, case: str, build: str) -> None:
    assert place.run("cudacheck", case, build=build) == ""


@pytest.mark.parametrize("known", [0, CONTEXT // 4])
def test_contexts_cost_more_than_known(place: Place, known: int) -> None:
    place.renew((UUIDS[0], SHARES[0], known))
    place.run("cudacheck", "contexts_cost_more", build="asan")


def test_gpu_without_a_share(place: Place) -> None:
    place.renew((UUIDS[0], SHARES[0], CONTEXT))
    place.run("cudacheck", "no_share", build="asan")


def test_dlclose_forgets_nothing(place: Place) -> None:
    place.run("cudacheck", "loaded_again")


def test_cudash(place: Place) -> None:
    """The commands with which the tests in containers work."""
    half = 480 * MIB
    output = place.run(
        "cudash", "primary", "info", f"alloc {half}", f"managed {half}", "alloc 1", "free 0", f"create {half}",
        "map 2", "alloc 1", "unmap 2", "release 2", f"async {half - 32 * MIB}", "pool 1", "freeasync 3", "sync",
        "pitch 1000 1000", "info", "destroy", build="asan",
    )  # fmt: skip
    assert numbers(output) == [
        GOOD, f"{GOOD} {960 * MIB} {1024 * MIB}", f"{GOOD} 0", f"{GOOD} 1", OUT, GOOD, f"{GOOD} 2", GOOD, OUT, GOOD,
        GOOD, f"{GOOD} 3", OUT, GOOD, GOOD, f"{GOOD} 4 1024", f"{GOOD} {478 * MIB} {1024 * MIB}", GOOD,
    ]  # fmt: skip
