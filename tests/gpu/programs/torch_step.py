"""Runs in a container: the median time of STEPS training steps, as `step NANOSECONDS`. usage: torch_step STEPS"""

from __future__ import annotations

import statistics
import sys
import time

import torch

WARM_UP = 30
"""Steps until the allocator has what it needs and cuDNN has made its choices."""


def main() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(64 * 16, 10),
    ).cuda()  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    data, target = torch.rand(256, 3, 32, 32, device="cuda"), torch.randint(10, (256,), device="cuda")
    taken = []
    for step in range(WARM_UP + int(sys.argv[1])):
        torch.cuda.synchronize()
        began = time.perf_counter_ns()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data), target).backward()
        optimizer.step()
        torch.cuda.synchronize()
        if step >= WARM_UP:
            taken.append(time.perf_counter_ns() - began)
    print(f"step {statistics.median(taken)}")


main()
