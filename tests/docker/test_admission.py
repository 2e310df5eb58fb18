"""Who gets in, and where: containers on simulated hosts of two and eight GPUs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.configure import configure
from runai_runtime.host import Host
from runai_runtime.live import set_share
from tests.docker import images
from tests.docker.engine import Engine, EngineError
from tests.docker.host import Container, Runai, configuration
from tests.simgpu.host import SimHost

MIB = 1 << 20
SLEEP = ("sleep", "600")
GPUS = 8


@pytest.fixture(scope="module")
def eight(folder: Path, engine: Engine) -> Iterator[Runai]:
    """The shared engine with a host of eight GPUs, of 1000 MiB of which the driver keeps none."""
    gpus = [{"name": "NVIDIA T4", "memory_mib": 1000, "reserved_mib": 0, "context_mib": 16} for _ in range(GPUS)]
    with SimHost(folder / "8/gpu-host", {"gpus": gpus}) as host:
        config = configuration(folder / "8", host)
        configure(config, folder / "8/config.json", folder / "8/runai-runtime")
        yield Runai(engine, host, config, folder / "8/runai-runtime", "runai-eight")


@pytest.fixture
def two(runai_two: Runai) -> Iterator[Runai]:
    yield runai_two
    write(runai_two, {})


def write(runai: Runai, more: dict[str, Any]) -> None:
    """The configuration, with MORE. A create that runs reads the old or the new."""
    path = runai.program.parent / "config.json"
    path.with_suffix(".new").write_text(json.dumps(runai.config | more))
    path.with_suffix(".new").rename(path)


def gpus_of(container: Container) -> list[int]:
    grant = json.loads((container.grant / "grant.json").read_text())
    return [gpu["index"] for gpu in grant["gpus"]]


def promised(runai: Runai) -> dict[int, int]:
    """MiB by GPU, by the grants of containers that run."""
    running = runai.engine.docker("ps", "--quiet", "--no-trunc").stdout.split()
    found = {path.parent.name: json.loads(path.read_text()) for path in runai.state.glob("[!.]*/grant.json")}
    assert sorted(found) == sorted(running), "the ledger is the containers that run"
    sums: dict[int, int] = {}
    for grant in found.values():
        for gpu in grant["gpus"]:
            sums[gpu["index"]] = sums.get(gpu["index"], 0) + gpu["guarantee"] // MIB
    return sums


def refusal(runai: Runai, memory: str | None, *options: str) -> str:
    """What the person reads after `docker: …: `."""
    done = runai.run("true", memory=memory, options=options, check=False)
    assert done.returncode == 125
    assert "runai: " in done.stderr
    return done.stderr.partition("runai: ")[2].partition(": unknown")[0]


def test_many_at_the_same_moment(eight: Runai, soak: bool) -> None:
    """Exactly as many get in as fit, whatever the order: none more, and none of them refused."""
    count = 200 if soak else 60
    each = (count - 1) // GPUS
    size = 1000 // each
    arguments = ["run", "-d", *eight.arguments(memory=f"{size}m"), images.BUSYBOX, *SLEEP]
    with ThreadPoolExecutor(count) as pool:
        done = list(pool.map(lambda _: eight.engine.docker(*arguments, check=False, timeout=600), range(count)))
    refused = [one.stderr for one in done if one.returncode]
    assert [said for said in refused if "MiB free by GPU: 0: " not in said] == []
    assert len(refused) == count - each * GPUS
    assert promised(eight) == dict.fromkeys(range(GPUS), each * size)


def test_too_many_at_the_same_moment(eight: Runai) -> None:
    """Of 12 with more than half a GPU each, exactly 8."""
    arguments = ["run", "-d", *eight.arguments(memory="501m"), images.BUSYBOX, *SLEEP]
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda _: eight.engine.docker(*arguments, check=False), range(12)))
    assert sum(one.returncode == 0 for one in done) == GPUS
    assert promised(eight) == dict.fromkeys(range(GPUS), 501)
    assert all(f"{i}: 499 of 1000 (" in one.stderr for one in done if one.returncode for i in range(GPUS))


def test_pack_and_spread(two: Runai) -> None:
    assert gpus_of(Container(two, *SLEEP, memory="1g")) == [1], "the smaller one of two that are empty"
    assert gpus_of(Container(two, *SLEEP, memory="1g")) == [1]
    assert gpus_of(Container(two, *SLEEP, memory="3g")) == [0]
    write(two, {"placement": "spread"})
    assert gpus_of(Container(two, *SLEEP, memory="1g")) == [0]
    assert gpus_of(Container(two, *SLEEP, memory="0.1", options=("--env=RUNAI_GPUS=2",))) == [0, 1]


def test_what_a_refusal_says(two: Runai) -> None:
    one = Container(two, *SLEEP, memory="6g")
    other = Container(two, *SLEEP, memory="3g")
    big, small = (f"GPU 0 has 1984 MiB free of 8128 MiB ({one.id[:12]}: 6144 MiB)", f"{other.id[:12]}: 3072 MiB")
    assert refusal(two, "2g") == (
        f"{big}, GPU 1 has 960 MiB free of 4032 MiB ({small}); this container asks for 2048 MiB; ask for less, or stop "
        "one of these"
    )
    named = refusal(two, "1g", "--env=RUNAI_GPUS=device=1")
    assert named.startswith("GPU 1 has 960 MiB free"), "a GPU that is named is not moved to where there is room"
    assert "GPU 0" not in named


def test_halves_and_wholes(two: Runai) -> None:
    """The driver keeps 64 MiB of each, and yet two halves fit, or one whole GPU."""
    halves = [Container(two, *SLEEP, memory="0.5", options=("--env=RUNAI_GPUS=device=0",)) for _ in range(2)]
    assert "GPU 0 has 0 MiB free" in refusal(two, "2m", "--env=RUNAI_GPUS=device=0")
    assert gpus_of(Container(two, *SLEEP, memory="1")) == [1]
    assert "4096MiB" in halves[0].execute("nvidia-smi")


def test_overcommit(two: Runai) -> None:
    options = ("--env=RUNAI_GPU_MEMORY_REQUEST=2g", "--env=RUNAI_GPU_MEMORY_LIMIT=6g")
    container = Container(two, *SLEEP, memory=None, options=options)
    assert json.loads((container.grant / "grant.json").read_text())["overcommit"] is False
    assert "asks for 6144 MiB" in refusal(two, None, *options)
    write(two, {"overcommit": True})
    for _ in range(2):
        container = Container(two, *SLEEP, memory=None, options=options)
    assert json.loads((container.grant / "grant.json").read_text())["overcommit"] is True
    assert "GPU 0 has 1984 MiB free of 8128 MiB" in refusal(two, None, *options)
    assert promised(two) == {0: 3 * 2048}


def test_waiting(two: Runai) -> None:
    """A create that finds no room gets what another gives back, or is refused when its time is over."""
    first = Container(two, *SLEEP, memory="6g")
    write(two, {"wait": 0.3})
    assert "MiB free" in refusal(two, "6g")
    write(two, {"wait": 60})
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(Container, two, *SLEEP, memory="6g")
        time.sleep(1)
        assert not second.done()
        two.engine.docker("rm", "--force", first.id)
        assert gpus_of(second.result()) == [0]
    assert promised(two) == {0: 6144}
    write(two, {"wait": 60, "reserve": "90%"})
    assert "asks for 6144 MiB" in refusal(two, "6g"), "what no wait can bring is refused at once"


def test_a_share_that_changes_is_admitted(two: Runai) -> None:
    host = Host("config.json", two.config)
    one = Container(two, *SLEEP, memory="5g")
    Container(two, *SLEEP, memory="2g", options=("--env=RUNAI_GPUS=device=0",))
    with pytest.raises(Exception, match=r"^GPU 0 has 6080 MiB free of 8128 MiB"):
        set_share(host, one.id, "6.5g")
    set_share(host, one.id, "2g")
    assert gpus_of(Container(two, *SLEEP, memory="4000m", options=("--env=RUNAI_GPUS=device=0",))) == [0]


def test_the_ledger_through_a_life(two: Runai) -> None:
    """Pause, restart and update keep it; a stop and a kill give it back, a start asks anew."""
    docker = two.engine.docker
    one = Container(two, *SLEEP, memory="6g")
    for command in (("pause",), ("unpause",), ("restart", "--time=0"), ("update", "--memory=1g", "--memory-swap=1g")):
        docker(*command, one.id)
        assert promised(two) == {0: 6144}
    docker("kill", one.id)
    docker("wait", one.id)
    other = Container(two, *SLEEP, memory="6g")
    with pytest.raises(EngineError, match="GPU 0 has 1984 MiB free"):
        docker("start", one.id)
    docker("rm", "--force", other.id)
    docker("start", one.id)
    assert promised(two) == {0: 6144}


@pytest.mark.parametrize("who", ["dockerd", "containerd-shim", "runai-agent"])
def test_others_that_are_killed(two: Runai, who: str) -> None:
    """The ledger is the containers that run afterwards, and what they don't hold can be had."""
    one = Container(two, *SLEEP, memory="6g")
    if who == "dockerd":
        two.engine.restart_dockerd(kill=True)
    else:
        (pid,) = processes(who.encode(), one.id.encode())
        os.kill(pid, signal.SIGKILL)
    if who == "containerd-shim":
        two.engine.docker("wait", one.id)
    write(two, {"wait": 20})
    assert gpus_of(Container(two, *SLEEP, memory="1g", options=("--env=RUNAI_GPUS=device=0",))) == [0]
    running = two.engine.docker("ps", "--quiet", "--no-trunc").stdout.split()
    assert promised(two) == {0: 1024 + 6144 * (one.id in running)}


@pytest.mark.parametrize("moment", range(6))
def test_a_create_that_is_killed_leaves_no_grant(two: Runai, moment: int) -> None:
    """The shim, the runtime or a hook by SIGKILL: whoever is there 30 ms later at each MOMENT."""
    running, makers = caught(two)
    time.sleep(0.03 * moment)
    for pid in makers | set(makers_of(two)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.communicate()
    two.engine.remove_containers()
    assert gpus_of(Container(two, *SLEEP, memory="6g")) == [0]
    assert promised(two) == {0: 6144}


def caught(runai: Runai) -> tuple[subprocess.Popen[str], set[int]]:
    """A `docker run -d`, and those who are just making its container. On a busy machine a look can come too late."""
    for _ in range(20):
        running = runai.engine.popen("run", "-d", *runai.arguments(memory="6g"), images.BUSYBOX, *SLEEP)
        while running.poll() is None:
            if makers := makers_of(runai):
                return running, makers
        running.communicate()
        runai.engine.remove_containers()
    raise AssertionError("nobody was seen making a container")


def makers_of(runai: Runai) -> set[int]:
    """The processes that make a container of RUNAI's: its shim, or what that has become, and hooks. Not its agent."""
    program, root = str(runai.program).encode(), str(runai.engine.runtime_root(runai.runtime)).encode()
    made = processes(program, b"\0create\0") | processes(root, b"\0create\0")
    return made | processes(b"runai-hook\0", str(runai.state).encode())


def processes(*words: bytes) -> set[int]:
    """Those with all of WORDS in their command line."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if all(word in line for word in words):
                found.add(int(path.parent.name))
    return found
