"""The runtime started by hand, on a bundle as `runc spec` makes them: no engine is there."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.agents import FILL, FILLED, RAW, agents, wait_for
from tests.docker.host import Runai, grants_in, host_mounts
from tests.programs.build import program
from tests.toolkit import cdi
from tests.toolkit.install import Toolkit

SHOWN = "0MiB /   3072MiB"


class Bare:
    """One bundle, and the runtime with a --root of its own, or with none."""

    def __init__(self, runai: Runai, home: Path) -> None:
        self.runai, self.home, self.bundle = runai, home, home / "bundle"
        self.root = runai.engine.place.state / "bare"
        (self.bundle / "rootfs").mkdir(parents=True)
        archive = images.archive(images.BUSYBOX)
        subprocess.run(["/usr/bin/tar", "-xf", archive, "-C", self.bundle / "rootfs"], check=True)
        subprocess.run(["/usr/sbin/runc", "spec"], cwd=self.bundle, check=True)
        self.template = json.loads((self.bundle / "config.json").read_text())

    def write(self, *command: str, memory: str = "3g") -> None:
        """The bundle's config.json, anew."""
        spec = json.loads(json.dumps(self.template))
        spec["process"] |= {"terminal": False, "args": command}
        spec["process"]["env"].append(f"RUNAI_GPU_MEMORY={memory}")
        spec["mounts"].append(
            {"destination": RAW, "type": "bind", "source": str(program("rawgpu", "-static")), "options": ["bind", "ro"]}
        )
        spec["linux"]["cgroupsPath"] = f"/{self.runai.engine.place.cgroup}/bare"
        (self.bundle / "config.json").write_text(json.dumps(spec))

    def __call__(self, *args: str | Path, cwd: Path | None = None, check: bool = True) -> str:
        """What the runtime with the command line ARGS says. Into a file, since a created container keeps it."""
        said = self.home / "said"
        with said.open("w") as file:
            done = subprocess.run(
                [self.runai.program, *args],
                cwd=cwd or self.home,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0 or not check, said.read_text()
        return said.read_text() + ("" if done.returncode == 0 else f"exit {done.returncode}\n")


@pytest.fixture
def bare(runai: Runai, tmp_path: Path) -> Iterator[Bare]:
    before = host_mounts()
    yield Bare(runai, tmp_path)
    assert grants_in(runai.state) == []
    wait_for(lambda: agents(runai.state) == [])
    assert host_mounts() == before


WAYS = {
    "absolute": ["--bundle={bundle}", "--pid-file={home}/pid"],
    "relative": ["-b", "bundle"],
    "relative, with dots": ["--bundle", "./bundle/../bundle"],
}


@pytest.mark.parametrize("name", ["runai-bare", "create"])
@pytest.mark.parametrize("way", WAYS)
def test_run(bare: Bare, way: str, name: str) -> None:
    options = [option.format(bundle=bare.bundle, home=bare.home) for option in WAYS[way]]
    bare.write("nvidia-smi")
    assert SHOWN in bare("--root", bare.root, "run", *options, name)
    assert SHOWN in bare("--root", bare.root, "run", *options, name)  # the edited bundle, again


def test_a_cdi_specification_and_the_bundle_again(bare: Bare) -> None:
    """The second time the container comes with its GPU, and with what the specification had it given."""
    folder = Path(bare.runai.config["cdi_spec_dirs"][0])
    folder.mkdir()
    try:
        toolkit = Toolkit(bare.home / "toolkit", bare.runai.simhost)
        (folder / "nvidia.json").write_text(json.dumps(cdi.with_more(toolkit.specification, bare.home)))
        bare.write("sh", "-c", "nvidia-smi; echo from CDI: $FROM_CDI")
        first = bare("--root", bare.root, "run", "-b", "bundle", "runai-bare")
        edited = (bare.bundle / "config.json").read_bytes()
        assert SHOWN in first and "from CDI: device 0" in first
        again = bare("--root", bare.root, "run", "-b", "bundle", "runai-bare")
        assert SHOWN in again and "from CDI: device 0" in again
        assert (bare.home / "trace").read_text() == "traced\n" * 2
        assert (bare.bundle / "config.json").read_bytes() == edited
    finally:
        shutil.rmtree(folder)


def test_run_in_the_bundle_and_with_the_runtimes_own_root(bare: Bare) -> None:
    bare.write("nvidia-smi")
    assert SHOWN in bare("run", "runai-test-bare", cwd=bare.bundle)


def test_the_share_is_held_by_an_agent(bare: Bare) -> None:
    """`runc spec` has no seccomp profile: the runtime makes one for the agent."""
    assert "seccomp" not in bare.template["linux"]
    bare.write(*FILL, memory="1g")
    assert FILLED in bare("--root", bare.root, "run", "-b", "bundle", "runai-bare")


def test_more_than_there_is_refused(bare: Bare) -> None:
    bare.write("echo", "ran", memory="30g")
    said = bare("--root", bare.root, "run", "-b", "bundle", "runai-bare", check=False)
    assert said == 'runai: RUNAI_GPU_MEMORY is "30g", 30720 MiB; GPU 0 has 10989 MiB; ask for less\nexit 1\n'


@pytest.mark.parametrize("root", [True, False])
def test_create_start_and_delete(bare: Bare, root: bool) -> None:
    options = ["--root", str(bare.root)] if root else []
    name = "runai-test-steps"
    folder = bare.runai.state / name
    bare.write("sleep", "600")
    try:
        bare(*options, "create", "-b", "bundle", name)
        grant = json.loads((folder / "grant.json").read_text())
        assert grant["root"] == (str(bare.root) if root else "/run/runc")
        bare(*options, "start", name)
        bare.runai.run("true")  # and its sweep, which leaves the grant alone
        assert SHOWN in bare(*options, "exec", name, "nvidia-smi")
        bare(*options, "kill", name, "KILL")
        wait_for(lambda: '"stopped"' in bare(*options, "state", name))
        bare(*options, "delete", name)
        assert not folder.exists()
    finally:
        with contextlib.suppress(AssertionError):
            bare(*options, "delete", "--force", name)
