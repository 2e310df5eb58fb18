"""runai-ctl as an administrator meets it: one sentence, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_configuration_is_left_alone(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.json"
    config.write_bytes(text.encode("latin-1"))
    program = str(Path(sys.executable).with_name("runai-ctl"))
    command = [program, "configure", f"--config={config}", f"--program={tmp_path}/program"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"runai-ctl: {config} ")
    assert "Traceback" not in done.stderr
    assert config.read_bytes() == text.encode("latin-1")
