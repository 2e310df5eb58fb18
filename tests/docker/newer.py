"""An engine of Docker 25 or later, for what Debian 12's (20.10) lacks: annotations and CDI."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.docker.engine import Engine, EngineError
from tests.docker.place import DATA

CDI_SINCE = 25
UNPACKED = DATA / "docker-26.1"


def binaries() -> Path | None:
    """The folder in which ./dev unpacks Debian 13's engine; None where the system's own is new enough."""
    if UNPACKED.is_dir():
        return UNPACKED
    if major() < CDI_SINCE:
        raise EngineError(f"the system's docker is too old, and there is no {UNPACKED}: ./dev test fetches it")
    return None


def major() -> int:
    """The version of the system's engine."""
    said = subprocess.run([Engine().program("dockerd"), "--version"], stdout=subprocess.PIPE, text=True, check=True)
    found = re.search(r"version (\d+)\.", said.stdout)
    if not found:
        raise EngineError(f"dockerd names no version: {said.stdout}")
    return int(found[1])
