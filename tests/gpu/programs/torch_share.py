"""Runs in a container with a share: what PyTorch sees, what it gets, how it fails, and a Triton kernel. Prints JSON."""

from __future__ import annotations

import json
import sys

import torch
import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def add_one(pointer, count, block: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Adds 1 to each of COUNT numbers."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(pointer + at, tl.load(pointer + at, mask=at < count) + 1, mask=at < count)


def until_out_of_memory() -> tuple[int, str]:
    """MiB that came before the error, and the error's name."""
    kept = []
    try:
        while True:
            kept.append(torch.empty(16 << 20, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError as error:
        return 16 * len(kept), type(error).__name__


def main() -> None:
    free, total = torch.cuda.mem_get_info()
    numbers = torch.zeros(1000, device="cuda")
    add_one[(4,)](numbers, 1000, block=256)
    square = torch.rand(1024, 1024, device="cuda")
    product = float((square @ torch.eye(1024, device="cuda") - square).abs().max())
    compiled = torch.compile(lambda x: torch.sin(x) + 1)
    difference = float((compiled(numbers) - (torch.sin(numbers) + 1)).abs().max())
    got, error = until_out_of_memory()
    torch.cuda.empty_cache()
    again = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    values = {
        "free": free,
        "total": total,
        "device_total": torch.cuda.get_device_properties(0).total_memory,
        "triton": float(numbers.sum()),
        "product": product,
        "compiled": difference,
        "got_mib": got,
        "error": error,
        "again": again.numel(),
    }
    print("RESULT " + json.dumps(values), flush=True)
    if "hold" in sys.argv:
        del again
        held = until_out_of_memory()
        print(f"HELD {held}", flush=True)
        sys.stdin.read()


main()
