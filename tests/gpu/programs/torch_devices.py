"""Runs in a container with a share of one GPU of several: which one PyTorch sees. Takes 1 GiB there, prints JSON."""

from __future__ import annotations

import json
import time

import torch


def main() -> None:
    properties = torch.cuda.get_device_properties(0)
    kept = torch.ones(1 << 28, device="cuda")
    torch.cuda.synchronize()
    result = {
        "count": torch.cuda.device_count(),
        "uuid": f"GPU-{getattr(properties, 'uuid', '')}",
        "total": properties.total_memory,
        "sum": int(kept.sum()),
    }
    print("RESULT", json.dumps(result), flush=True)
    time.sleep(0.5)


if __name__ == "__main__":
    main()
