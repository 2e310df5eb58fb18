"""What a low-level runtime takes, it takes with a share in it: config.json files of all kinds, under runc and crun."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.docker.engine import Engine
from tests.docker.host import Runai, configuration, grants_in, host_mounts
from tests.docker.test_bare import Bare
from tests.simgpu.host import SimHost

RUNTIMES = {"runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}
# crun wants one version of cgroups; what else is mounted here is taken away for it alone.
ONE_VERSION = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$0" "$@"'
LIMIT = 3 << 30

letters = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
capabilities = st.sets(st.sampled_from(["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW", "CAP_SETUID"])).map(sorted)
users = st.fixed_dictionaries(
    {"uid": st.sampled_from([0, 1000]), "gid": st.sampled_from([0, 1000])},
    optional={"additionalGids": st.lists(st.integers(1, 99), max_size=3), "umask": st.just(63)},
)
tmpfs = st.sampled_from(["/tmp", "/run", "/mnt/x", "/usr/lib/nvidia", "/usr/local/nvidia/lib64", "/opt"]).map(
    lambda target: {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
)
processes = st.fixed_dictionaries(
    {},
    optional={
        "cwd": st.sampled_from(["/", "/tmp", "/usr/bin"]),
        "user": users,
        "noNewPrivileges": st.booleans(),
        "rlimits": st.just([{"type": "RLIMIT_NOFILE", "hard": 512, "soft": 512}]),
        "capabilities": st.fixed_dictionaries({"bounding": capabilities, "effective": st.just([])}),
    },
)
filters = st.fixed_dictionaries(
    {"defaultAction": st.just("SCMP_ACT_ALLOW")},
    optional={
        "architectures": st.just(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
        "syscalls": st.just([{"names": ["kexec_load", "no_such_call"], "action": "SCMP_ACT_ERRNO"}]),
    },
)
linux = st.fixed_dictionaries(
    {},
    optional={
        "maskedPaths": st.lists(st.sampled_from(["/proc/kcore", "/nowhere"]), max_size=2),
        "readonlyPaths": st.lists(st.sampled_from(["/proc/sys", "/etc"]), max_size=2),
        "rootfsPropagation": st.sampled_from(["private", "rprivate", "slave", "rslave", "shared"]),
        "seccomp": filters,
        "devices": st.just([{"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5, "fileMode": 438}]),
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "memory": st.just({"limit": 512 << 20}),
                "devices": st.just([{"allow": False, "access": "rwm"}]),
            },
        ),
        "namespaces": st.sampled_from([["pid", "mount"], ["pid", "mount", "network", "ipc", "uts"]]).map(
            lambda kinds: [{"type": kind} for kind in kinds]
        ),
    },
)
# A hook reads the state that it is given: crun refuses a container whose hook has ended before that was written.
HOOK: dict[str, Any] = {"path": "/bin/sh", "args": ["sh", "-c", "cat >/dev/null"]}
hooks = st.dictionaries(
    st.sampled_from(["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]),
    st.lists(st.sampled_from([HOOK, HOOK | {"timeout": 5}]), max_size=2),
    max_size=2,
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "process": processes,
        "linux": linux,
        "hooks": hooks,
        "annotations": st.dictionaries(names, letters, max_size=3),
        "hostname": names,
        "root": st.fixed_dictionaries({"path": st.just("rootfs")}, optional={"readonly": st.booleans()}),
        "env": st.dictionaries(names, letters, max_size=4),
        "mounts": st.lists(tmpfs, max_size=2),
    },
)


@pytest.fixture(scope="module", params=list(RUNTIMES))
def runtime(request: pytest.FixtureRequest, folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    home = folder / f"z{request.param[0]}"
    config = configuration(home, simhost, RUNTIMES[request.param])
    return Runai.configured(engine, simhost, config, home)


class Bundles:
    """One bundle after another, under the low-level runtime alone and with a share."""

    def __init__(self, runai: Runai, home: Path) -> None:
        self.bare, self.number = Bare(runai, home), 0
        self.bare.write("sh", "-c", "cat /.runai/limits; echo done")
        self.template = json.loads((self.bare.bundle / "config.json").read_text())

    def spec(self, change: dict[str, Any], *, share: bool) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(json.dumps(self.template | {"hooks": {}}))
        spec["process"] |= change.get("process", {})
        spec["linux"] |= change.get("linux", {})
        spec |= {key: change[key] for key in ("hooks", "annotations", "hostname", "root") if key in change}
        if not any(one["type"] == "uts" for one in spec["linux"]["namespaces"]):
            spec.pop("hostname", None)
        spec["mounts"] += change.get("mounts", [])
        asked = [variable for variable in spec["process"]["env"] if share or not variable.startswith("RUNAI_")]
        spec["process"]["env"] = [*asked, *(f"{name}={value}" for name, value in change.get("env", {}).items())]
        return spec

    def run(self, change: dict[str, Any], *, share: bool) -> tuple[bool, str]:
        """Whether it ran to its end, and what was said."""
        runai = self.bare.runai
        (self.bare.bundle / "config.json").write_text(json.dumps(self.spec(change, share=share)))
        program = runai.program if share else runai.config["runtime"]
        self.number += 1
        name = f"accepted{self.number}"
        done = self.call(program, "run", "--bundle", self.bare.bundle, name)
        # On a busy machine crun was once seen to end and leave its container behind.
        self.call(program, "delete", "--force", name)
        return done.stdout.endswith("done\n"), done.stdout + done.stderr

    def call(self, program: str | Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/usr/bin/unshare", "-m", "/bin/sh", "-c", ONE_VERSION, program, "--root", self.bare.root, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60, check=False,
        )  # fmt: skip


def test_accepted_with_a_share(runtime: Runai, tmp_path: Path, count: Callable[[int], int]) -> None:
    bundles, before, held = Bundles(runtime, tmp_path), host_mounts(), [0, 0]

    @settings(
        deadline=None,
        max_examples=count(200),
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(changes)
    def check(change: dict[str, Any]) -> None:
        ran, _ = bundles.run(change, share=False)
        ran_with_share, said = bundles.run(change, share=True)
        assert "Traceback" not in said
        assert "nobody expected" not in said
        if ran_with_share:
            assert said.splitlines()[0].split()[1] == str(LIMIT)
        elif ran:
            assert "runai: " in said, said
        held[ran_with_share] += 1
        assert grants_in(runtime.state) == []

    check()
    assert held[True] > held[False]
    assert host_mounts() == before
