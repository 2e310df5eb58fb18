"""libvgpu keeps to itself: nothing of the process around it changes."""

from __future__ import annotations

import subprocess

from tests.unit.libvgpu.place import Place


def test_nothing_of_the_process_is_touched(place: Place) -> None:
    with_us = place.run("cudacheck", "footprint")
    environment = place.environment("plain") | {"LD_LIBRARY_PATH": str(place.host.lib)}
    native = subprocess.run(
        place.command("cudacheck", "footprint"), env=environment, capture_output=True, text=True, check=True
    )
    assert with_us == native.stdout and not native.stderr
    assert "descriptors more: 0, maps more: 0" in with_us
