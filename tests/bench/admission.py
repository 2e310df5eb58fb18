"""What a create costs on a host full of grants, and on one of eight GPUs: up to where the low-level runtime begins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from runai_runtime.configure import configure
from runai_runtime.grant import Share, write_grant
from runai_runtime.host import read_host
from runai_runtime.inventory import read_inventory
from tests.bench.agent import STUB
from tests.bench.pairs import Pairs, Row, measure
from tests.docker.host import configuration
from tests.simgpu.host import SimHost

GRANTS = 256
MIB = 1 << 20
LARGE = {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "reserved_mib": 480}


def admission(folder: Path, rounds: int) -> Iterator[Row]:
    """Creates of a container that names no GPU and has no agent, on hosts of one and eight GPUs, empty and full."""
    with ExitStack() as stack:
        hosts = {
            count: stack.enter_context(SimHost(folder / f"{count}", {"gpus": [LARGE] * count})) for count in (1, 8)
        }
        creates = [
            prepared(folder / f"{count}-{grants}", configuration(folder / f"{count}-{grants}", host), grants)
            for count, host in hosts.items()
            for grants in (0, GRANTS)
        ]
        one, one_full, eight, eight_full = measure(creates, rounds)
    for what, asked, base, other in (
        (f"a create with a share: added by {GRANTS} grants on 1 GPU", 5.0, one, one_full),
        ("a create with a share: added by 8 GPUs instead of 1", 2.0, one, eight),
        (f"the same with {GRANTS} grants on both", 2.0, one_full, eight_full),
    ):
        yield Row(what, asked, [1000 * difference for difference in Pairs(base, other).differences], " ms")


def prepared(home: Path, config: Mapping[str, Any], grants: int) -> Callable[[], None]:
    """One create on that host, on which GRANTS containers live already."""
    bundle, stub, program, root = home / "bundle", home / "stub", home / "runai-runtime", home / "root"
    (bundle / "rootfs").mkdir(parents=True)
    stub.write_text(STUB)
    stub.chmod(0o755)
    configure({**config, "runtime": str(stub), "enforcement": "interposer"}, home / "config.json", program)
    host = read_host(str(home / "config.json"))
    gpus = read_inventory(host).gpus
    for number in range(grants):
        name = f"{number:064x}"
        (root / name).mkdir(parents=True)
        (root / name / "state.json").touch()  # the runtime knows it
        share = Share(gpus[number % len(gpus)], 256 * MIB, 256 * MIB)
        write_grant(host, name, str(root), [share], "", {"from": "host", "version": "580.159.04"})
        (Path(host.state) / name / "pid").write_text(f"{os.getpid()}\n")  # and it lives
    subprocess.run(["/usr/sbin/runc", "spec", "-b", bundle], check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"]["env"].append("RUNAI_GPU_MEMORY=3g")
    text = json.dumps(spec)

    def create() -> None:
        (bundle / "config.json").write_text(text)
        subprocess.run([program, "--root", root, "create", "--bundle", bundle, "x"], check=True)
        shutil.rmtree(home / "s/x")  # else the next one would take it back

    return create
