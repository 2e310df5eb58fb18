"""The main job, end to end: a container with a share sees it, gets it, and gets no more."""

from __future__ import annotations

from tests.docker.conftest import Runai


def test_nvidia_smi_shows_the_share(runai: Runai) -> None:
    assert "0MiB /   3072MiB" in runai.run("nvidia-smi").stdout
