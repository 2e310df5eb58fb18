"""Runs in a container with a share: a Numba kernel, then all the memory that can be had."""

from __future__ import annotations

import json

import numpy as np

if not hasattr(np, "row_stack"):  # NumPy 2.5 dropped it, and some versions of numba-cuda ask for it
    np.row_stack = np.vstack

from numba import cuda


@cuda.jit
def add_one(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Adds 1 to each number."""
    i = cuda.grid(1)
    if i < x.size:
        x[i] += 1


def main() -> None:
    x = cuda.to_device(np.zeros(1000, dtype=np.float32))
    add_one[4, 256](x)
    computed = float(x.copy_to_host().sum())
    info = cuda.current_context().get_memory_info()
    kept = []
    error = ""
    try:
        while True:
            kept.append(cuda.device_array(32 << 20, dtype=np.uint8))
    except Exception as failure:  # noqa: BLE001 - numba-cuda has had several names for it
        error = str(failure)
    values = {"total": info.total, "computed": computed, "got_mib": 32 * len(kept), "error": error}
    print("RESULT " + json.dumps(values))


main()
