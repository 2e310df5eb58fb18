"""Runs in a container with a share: CuPy computes, then takes all it can get."""

from __future__ import annotations

import json

import cupy


def main() -> None:
    free, total = cupy.cuda.runtime.memGetInfo()
    doubled = cupy.ElementwiseKernel("float32 x", "float32 y", "y = x * 2", "doubled")
    computed = float(doubled(cupy.ones(1000, dtype=cupy.float32)).sum())
    kept = []
    error = ""
    try:
        while True:
            kept.append(cupy.ones(32 << 20, dtype=cupy.uint8))
    except cupy.cuda.memory.OutOfMemoryError as failure:
        error = type(failure).__name__
    values = {"total": total, "free": free, "computed": computed, "got_mib": 32 * len(kept), "error": error}
    print("RESULT " + json.dumps(values))


main()
