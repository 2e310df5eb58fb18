"""Runs in a container with a share: trains a small network, then takes what is left, with whatever allocator is set."""

from __future__ import annotations

import json

import torch


def train() -> tuple[float, float]:
    """The loss before and after 30 steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32 * 30 * 30, 10)
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data, target = torch.rand(256, 3, 32, 32, device="cuda"), torch.randint(10, (256,), device="cuda")
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(data), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses[0], losses[-1]


def until_out_of_memory(mib: int) -> tuple[int, str]:
    """MiB that came in blocks of MIB before the error, and the error's name."""
    kept = []
    try:
        while True:
            kept.append(torch.ones(mib << 20, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError as error:
        return mib * len(kept), type(error).__name__


def main() -> None:
    before, after = train()
    got, error = until_out_of_memory(32)
    again, _ = until_out_of_memory(100)  # what was freed can be had again, in other sizes
    before_again, after_again = train()
    values = {
        "backend": torch.cuda.get_allocator_backend(),
        "learned": after < before and after_again < before_again,
        "got_mib": got,
        "again_mib": again,
        "error": error,
    }
    print("RESULT " + json.dumps(values))


main()
