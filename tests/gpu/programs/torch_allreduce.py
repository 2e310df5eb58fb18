"""Runs in containers with shares: of processes with a GPU each, one. They add up what they have through NCCL, and then
one asks for more than its share. usage: torch_allreduce.py RANK [RANK...] (of 2; more than one are started from here)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch
from torch import distributed

COUNT = 1 << 26  # numbers of 4 bytes
ROUNDS = 20

# A program that uses NVLink multicast and dies can leave the GPUs of a host in need of a reset.
SAFE = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NCCL_SOCKET_IFNAME": "lo"}


def work(rank: int, device: int) -> None:
    torch.cuda.set_device(device)
    distributed.init_process_group("nccl", init_method="tcp://127.0.0.1:29511", rank=rank, world_size=2)
    numbers = torch.full((COUNT,), float(rank + 1), device="cuda")
    for _ in range(ROUNDS):
        distributed.all_reduce(numbers)  # 1 + 2, then twice what there is
    torch.cuda.synchronize()
    beyond = "given"
    try:
        torch.empty(3 << 30, dtype=torch.uint8, device="cuda")
    except torch.cuda.OutOfMemoryError:
        beyond = "refused"
    result = {
        "rank": rank,
        "uuid": f"GPU-{getattr(torch.cuda.get_device_properties(device), 'uuid', '')}",
        "right": bool((numbers == 3.0 * 2 ** (ROUNDS - 1)).all()),
        "total": torch.cuda.mem_get_info(device)[1],
        "beyond": beyond,
    }
    distributed.barrier()
    print("RESULT", json.dumps(result), flush=True)
    distributed.destroy_process_group()


def main() -> None:
    os.environ.update(SAFE)
    ranks = [int(argument) for argument in sys.argv[1:]]
    if len(ranks) == 1:
        work(ranks[0], ranks[0] if torch.cuda.device_count() > 1 else 0)
        return
    processes = [subprocess.Popen([sys.executable, __file__, str(rank)]) for rank in ranks]
    sys.exit(max(process.wait() for process in processes))


if __name__ == "__main__":
    main()
