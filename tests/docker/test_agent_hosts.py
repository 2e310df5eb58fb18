"""The agent on other hosts than the usual: crun, Docker 26.1, user namespaces, seccomp profiles of one's own, and a
low-level runtime that can't have an agent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.configure import configure
from runai_runtime.errors import RefusalError
from tests.docker import images, newer
from tests.docker.agents import FILL, FILLED, agent_of, agents, tools, used, wait_for
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, Container, Runai, configuration, grants_in
from tests.programs.build import program
from tests.simgpu.host import SimHost

MIB = 1 << 20
RUNC, CRUN = "/usr/sbin/runc", "/usr/bin/crun"

HOSTS: dict[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "crun": ("c", CRUN, lambda: {"crun": True}),
    "docker26": ("d", RUNC, lambda: {"binaries": newer.binaries()}),
    "userns": ("u", RUNC, lambda: {"remap": True}),
    "userns-crun": ("v", CRUN, lambda: {"remap": True, "crun": True}),
}
"""Of each: its folder (a short one, for the sockets in it), the low-level runtime, what its engine is started with."""


@pytest.fixture(scope="module", params=HOSTS)
def other(request: pytest.FixtureRequest, folder: Path, simhost: SimHost) -> Iterator[Runai]:
    place, runtime, settings = HOSTS[request.param]
    folder.chmod(0o711)
    home = folder / place
    registered = home / "runai-runtime"
    config = configuration(home, simhost, runtime) | {"enforcement": "agent"}
    with Engine({"runai": registered}, **settings()) as engine:
        images.load(engine, images.BUSYBOX)
        configure(config, home / "config.json", registered)
        yield Runai(engine, simhost, config, registered)


def test_it_bounds_and_ends(other: Runai) -> None:
    """The container's own process, and two that come later."""
    script = f"{' '.join(FILL)}; exec sleep 600"
    container = Container(other, "sh", "-c", script, memory="1g", options=tools())
    agent = agent_of(container)
    assert container.wait_for("status") == FILLED
    assert [container.execute(*FILL) for _ in range(2)] == [FILLED] * 2
    cuda = container.execute(CUDASH, "primary", "total", "fill 64m").splitlines()
    assert cuda[1].endswith(f" {1 << 30}") and "CUDA_ERROR_OUT_OF_MEMORY" in cuda[2]
    assert re.search(r"\d+MiB / +1024MiB", container.execute("nvidia-smi"))
    wait_for(lambda: used(container) == 0)
    assert agent_of(container) == agent
    other.engine.docker("rm", "-f", container.id)
    wait_for(lambda: agents(other.state) == [])
    assert not container.grant.exists()
    assert other.simhost.used() == 0


@pytest.mark.parametrize(
    "options",
    [
        "--user=1000",
        "--security-opt=no-new-privileges",
        "--pid=host --userns=host",
        "--read-only",
        "--init",
        "--cap-drop=ALL",
    ],
)
def test_as_people_start_containers(other: Runai, options: str) -> None:
    assert other.run(*FILL, memory="1g", options=(*tools(), *options.split())).stdout == FILLED


def test_stop_and_start(other: Runai) -> None:
    container = Container(other, "sleep", "600", memory="1g", options=tools())
    first = agent_of(container)
    other.engine.docker("restart", "--time=0", container.id)
    assert agent_of(container) != first
    assert container.execute(*FILL) == FILLED
    other.engine.docker("rm", "-f", container.id)
    wait_for(lambda: agents(other.state) == [])


def test_a_container_that_can_not_start(other: Runai) -> None:
    done = other.run("/nowhere", memory="1g", check=False)
    assert done.returncode in (125, 127) and "/nowhere" in done.stderr  # docker reads runc's words, not crun's
    wait_for(lambda: agents(other.state) == [])
    assert other.run("true", memory="1g").returncode == 0  # crun calls no hook for the one before; this create does it
    assert grants_in(other.state) == []


def test_pause(other: Runai) -> None:
    """A frozen caller waits in no way of the agent's."""
    container = Container(other, "sh", "-c", f"while {' '.join(FILL)}; do :; done", memory="1g", options=tools())
    container.wait_for("status")
    for _ in range(3):
        other.engine.docker("pause", container.id)
        other.engine.docker("unpause", container.id)
    other.engine.docker("rm", "-f", container.id)
    wait_for(lambda: agents(other.state) == [])
    assert other.simhost.used() == 0


# ---- profiles ----------------------------------------------------------------------------------------------------

REQUESTS = "/usr/local/bin/requests"
TIOCSTI, TCGETS = 0x5412, 0x5401
DENY_ONE = {
    "names": ["ioctl"],
    "action": "SCMP_ACT_ERRNO",
    "errnoRet": 13,
    "args": [{"index": 1, "value": TIOCSTI, "op": "SCMP_CMP_EQ"}],
}
DENY_ALL = {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
CHMOD = {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}


@pytest.fixture(scope="module")
def dockers_profile(engine: Engine) -> dict[str, Any]:
    """What dockerd makes of its default one."""
    found = bundle_config(engine, engine.docker("run", "-d", "--network=host", images.BUSYBOX, "sleep", "600").stdout)
    seccomp: dict[str, Any] = json.loads(found)["linux"]["seccomp"]
    engine.remove_containers()
    return seccomp


def bundle_config(engine: Engine, container: str) -> str:
    tasks = engine.place.state / "containerd/io.containerd.runtime.v2.task/moby"
    return (tasks / container.strip() / "config.json").read_text()


def profile_option(folder: Path, profile: dict[str, Any]) -> str:
    path = folder / "profile.json"
    path.write_text(json.dumps(profile))
    return f"--security-opt=seccomp={path}"


def permissive(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(rules)}


def test_a_profile_that_allows_ioctl(runai_agent: Runai, dockers_profile: dict[str, Any], tmp_path: Path) -> None:
    assert dockers_profile["defaultAction"] == "SCMP_ACT_ERRNO"
    option = profile_option(tmp_path, dockers_profile)
    assert runai_agent.run(*FILL, memory="1g", options=(*tools(), option)).stdout == FILLED


@pytest.mark.parametrize("rules", [(DENY_ONE, CHMOD), (CHMOD, DENY_ONE)])
def test_a_profile_that_denies_one_ioctl(runai_agent: Runai, tmp_path: Path, rules: tuple[dict[str, Any], ...]) -> None:
    """It stays denied, another stays allowed, and the share is held."""
    options = (*tools(), f"--volume={program('requests', '-static')}:{REQUESTS}:ro")
    option = profile_option(tmp_path, permissive(*rules))
    script = f"{REQUESTS} {TIOCSTI:#x} {TCGETS:#x}; chmod 600 /etc/passwd || echo denied; {' '.join(FILL)}"
    lines = runai_agent.run("sh", "-c", script, memory="1g", options=(*options, option)).stdout.split("\n", 3)
    assert lines == ["13", "25", "denied", FILLED]


def test_a_profile_that_denies_ioctl(runai_agent: Runai, tmp_path: Path) -> None:
    """Nothing of it is opened by the rules of the agent."""
    option = profile_option(tmp_path, permissive(DENY_ALL))
    done = runai_agent.run(*FILL, memory="1g", options=(*tools(), option), check=False)
    assert (done.returncode, done.stdout) == (1, "errno 13\n")


def test_no_request_no_change(runai_agent: Runai) -> None:
    """A container that asks for nothing is the same, byte for byte, as one of runc; dockerd's own hook is in it."""
    engine = runai_agent.engine
    texts = []
    for runtime in ("runc", "runai-agent"):
        arguments = runai_agent.with_network().arguments("--hostname=same", memory=None, runtime=runtime)
        ident = engine.docker("run", "-d", *arguments, images.BUSYBOX, "sleep", "600").stdout.strip()
        filters = engine.docker("exec", ident, "grep", "Seccomp", "/proc/self/status").stdout
        texts.append(re.sub("[0-9a-f]{64}", "ID", bundle_config(engine, ident)) + filters)
        assert agents(runai_agent.state) == []
    assert texts[0] == texts[1]
    assert "SCMP_ACT_NOTIFY" not in texts[1] and "listenerPath" not in texts[1]


# ---- a runtime that can't ----------------------------------------------------------------------------------------


@pytest.fixture
def unable(folder: Path, simhost: SimHost) -> Iterator[Runai]:
    """A host whose runtime says nothing of listeners; configured before the agent was asked for."""
    home = folder / "w"
    home.mkdir(exist_ok=True)
    stub = home / "stub"
    stub.write_text(f'#!/bin/sh\n[ "$1" = features ] && exit 1\nexec {RUNC} "$@"\n')
    stub.chmod(0o755)
    registered = home / "runai-runtime"
    config = configuration(home, simhost, str(stub))
    with Engine({"runai": registered}) as engine:
        images.load(engine, images.BUSYBOX)
        configure(config, home / "config.json", registered)
        yield Runai(engine, simhost, config, registered)


def test_a_runtime_that_can_not_is_refused(unable: Runai) -> None:
    home = unable.state.parent
    why = f"{home}/stub doesn't say that it knows SCMP_ACT_NOTIFY (runc 1.1 does)"
    assert "0MiB /   1024MiB" in unable.run("nvidia-smi", memory="1g").stdout
    config = home / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"enforcement": "agent"}))
    done = unable.run("true", memory="1g", check=False)
    assert done.returncode == 125
    assert f"runai: the share can't be kept by the agent, which {config} asks for: {why}" in done.stderr
    assert grants_in(unable.state) == []
    assert agents(unable.state) == []
    assert unable.run("echo", "fine", memory=None).stdout == "fine\n"  # whoever asks for nothing isn't touched
    with pytest.raises(RefusalError, match="can't be kept by the agent"):
        configure(unable.config | {"enforcement": "agent"}, home / "other.json", home / "other")
