"""Files in a folder of CDI specifications that are none, and may be there to do harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

WAS_HERE = Path("/tmp/runai-cdi-was-here")


def references() -> str:
    """A few hundred bytes that stand for 10^9 strings."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join(lines)


BROKEN: dict[str, Callable[[Path], object]] = {
    "fifo.json": os.mkfifo,
    "loop.yaml": lambda path: path.symlink_to(path),
    "nowhere.yaml": lambda path: path.symlink_to("/nowhere"),
    "device.yaml": lambda path: path.symlink_to("/dev/zero"),
    "folder.json": lambda path: path.mkdir(),
    "large.yaml": lambda path: path.write_bytes(bytes(50 << 20)),
    "references.yaml": lambda path: path.write_text(references()),
    "itself.yaml": lambda path: path.write_text("devices: &a [*a]"),
    "deep.json": lambda path: path.write_text("[" * 500_000),
    "deep.yaml": lambda path: path.write_text("[" * 500_000),
    "bytes.yaml": lambda path: path.write_bytes(b"kind: \xff\xfe"),
    "tag.yaml": lambda path: path.write_text(f"kind: !!python/object/apply:os.system [touch {WAS_HERE}]"),
    "version.json": lambda path: path.write_text('{"cdiVersion": "9.0.0", "kind": "nvidia.com/gpu"}'),
    "device.json": lambda path: path.write_text('{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [1]}'),
}
