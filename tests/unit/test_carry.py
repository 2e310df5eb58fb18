"""What is carried to a machine with a GPU is what the tests start there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.programs.carry import PROGRAMS

GPU = Path(__file__).parents[1] / "gpu"


def test_all_programs_of_the_gpu_tests_are_carried() -> None:
    texts = "".join(path.read_text() for path in sorted(GPU.glob("*.py")))
    started = set(re.findall(r"""(?:host|two)\.program\(['\"](\w+)['\"]\)""", texts)) | {
        "cudash",
        "cudabench",
        "footprint",
    }
    assert started == set(PROGRAMS)
