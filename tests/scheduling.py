"""Which tests one of pytest-xdist's workers takes together: a file's, and where a folder's fixtures compile for a
quarter of a minute (scope "package", in its conftest.py), the folder's.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

FOLDERS = ("tests/unit/agent/", "tests/unit/libvgpu/")


class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types for it
    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in FOLDERS if nodeid.startswith(folder)), super()._split_scope(nodeid))
