"""Limits or an account that is missing or damaged: everything can be asked, nothing taken."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.unit.libvgpu.place import PAGE_SIZE, UUIDS, Place, numbers


def _no_limits(place: Place) -> None:
    place.limits.unlink()


def _damaged_limits(place: Place) -> None:
    place.limits.write_text(f"{UUIDS[0]} lots 0\n")


def _endless_limits(place: Place) -> None:
    place.limits.write_text("x" * 100000)


def _folder_for_limits(place: Place) -> None:
    place.limits.unlink()
    place.limits.symlink_to(place.folder)


def _no_page(place: Place) -> None:
    place.page.unlink()


def _short_page(place: Place) -> None:
    os.truncate(place.page, PAGE_SIZE - 1)


def _folder_for_page(place: Place) -> None:
    place.page.unlink()
    place.page.symlink_to(place.folder)


@pytest.mark.parametrize(
    "damage",
    [_no_limits, _damaged_limits, _endless_limits, _folder_for_limits, _no_page, _short_page, _folder_for_page],
)
def test_damage_stops_allocations_alone(place: Place, damage: Callable[[Place], None]) -> None:
    damage(place)
    place.run("cudacheck", "nothing_allowed", build="asan")
    said = numbers(place.run("nvmlsh", "init", "device 0", "memory"))
    assert said == ["0 ", "0 ", "17"]  # NVML_ERROR_OPERATING_SYSTEM


def test_account_that_cannot_be_written(place: Place) -> None:
    """Root may write what is read-only: another user then."""
    os.chmod(place.page, 0o444)
    for folder in {*place.folder.parents, *place.host.lib.parents}:
        if not folder.stat().st_mode & 1:
            os.chmod(folder, folder.stat().st_mode | 0o011)
    done = subprocess.run(
        place.command("cudacheck", "nothing_allowed"), env=place.environment("plain"), user=65534, group=65534,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
