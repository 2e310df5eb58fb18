"""NVIDIA's runtime between our two stages: what is written for it, and what the first stage leaves for the second."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.commandline import CommandLine
from runai_runtime.configure import BEHIND_NVIDIA, defaults, runtimes_behind, second_stage
from runai_runtime.edits import AddGuard, AddHook, RemoveGuards
from runai_runtime.errors import RefusalError
from runai_runtime.prepare import guard
from runai_runtime.toolkit import visible_devices

GUARDED = ("prestart", "createContainer")


@pytest.fixture
def nvidia(tmp_path: Path) -> Path:
    """A program that is NVIDIA's runtime by its name."""
    return executable(tmp_path / "usr/nvidia-container-runtime")


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def written(tmp_path: Path, **values: Any) -> dict[str, str]:
    """The second stage's programs, by name."""
    config = defaults() | values
    folder = second_stage(runtimes_behind(config), config, tmp_path / "config.json", tmp_path / "program")
    assert folder in ("", str(tmp_path / "program.d"))
    return {path.name: path.read_text() for path in Path(folder).iterdir()} if folder else {}


def test_the_programs_of_the_second_stage(tmp_path: Path, nvidia: Path) -> None:
    programs = written(tmp_path, runtime=str(nvidia))
    assert {"runc", "crun"} <= set(programs) <= set(BEHIND_NVIDIA)
    assert "\n# runtime=/usr/sbin/runc\n" in programs["runc"]
    assert f"'/usr/sbin/runc', leave='{tmp_path}/program.d')" in programs["runc"]


@pytest.mark.parametrize("name", ["runc", "nvidia-container-toolkit", "nvidia"])
def test_no_second_stage(tmp_path: Path, name: str) -> None:
    assert written(tmp_path, runtime=str(executable(tmp_path / "usr" / name))) == {}


@pytest.mark.parametrize("name", ["nvidia-container-runtime.cdi", "nvidia-container-runtime.real"])
def test_other_names_of_nvidias_runtime(tmp_path: Path, name: str) -> None:
    link = tmp_path / "gpu"
    link.symlink_to(executable(tmp_path / "usr" / name))
    assert written(tmp_path, runtime=str(link.resolve()))
    assert written(tmp_path, runtime=str(link))


def test_runtimes_that_the_configuration_names(tmp_path: Path) -> None:
    """Which also says that `runtime` is of NVIDIA's kind, whatever its name."""
    own = executable(tmp_path / "usr/youki")
    assert "\n# runtime=" + str(own) in written(tmp_path, behind_nvidia=[str(own)])["youki"]
    with pytest.raises(RefusalError, match="can't be started"):
        written(tmp_path, behind_nvidia=["/nowhere/youki"])


def test_what_an_earlier_configuration_left(tmp_path: Path, nvidia: Path) -> None:
    own = executable(tmp_path / "usr/youki")
    assert "youki" in written(tmp_path, runtime=str(nvidia), behind_nvidia=[str(own)])
    assert "youki" not in written(tmp_path, runtime=str(nvidia))
    assert written(tmp_path) == {}
    assert not (tmp_path / "program.d").exists()


def test_a_folder_that_no_search_path_can_hold(tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match="colon"):
        second_stage({"runc": "/usr/sbin/runc"}, defaults(), tmp_path / "config.json", tmp_path / "a:b")


@pytest.mark.parametrize(
    ("enter", "leave", "path", "expected"),
    [
        ("", "", "/a::/b", "/a::/b"),
        ("/second", "", "/a:/b", "/second:/a:/b"),
        ("/second", "", "/a:/second:/b", "/second:/a:/b"),
        ("/second", "", ":/a:", "/second:/a"),
        ("/second", "", "", "/second"),
        ("", "/second", "/second:/a", "/a"),
    ],
)
def test_the_search_path(tmp_path: Path, enter: str, leave: str, path: str, expected: str) -> None:
    """For a command that is looked into, which this bundle gives nothing to do."""
    runtime = executable(tmp_path / "runtime", '#!/bin/sh\necho "$PATH $KEPT"\n')
    script = "import sys; sys.path.append(sys.argv.pop(1)); from runai_runtime.shim import main; "
    script += f"main('/nowhere', {str(runtime)!r}, enter={enter!r}, leave={leave!r})"
    command = ["/usr/bin/python3", "-IS", "-c", script, str(Path(__file__).parents[2]), "create", "-b", "/nowhere", "x"]
    done = subprocess.run(command, env={"PATH": path, "KEPT": "ü"}, capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected} ü\n"


def test_guards_go_in_once_and_out() -> None:
    before = {"hooks": {"prestart": [{"path": "/other", "args": ["other", "guard"]}]}}
    spec: dict[str, Any] = copy.deepcopy(before)
    for stage in GUARDED * 2:
        AddGuard(stage, "/hook", "/folder").apply(spec)
    assert [len(spec["hooks"][stage]) for stage in GUARDED] == [2, 1]
    RemoveGuards().apply(spec)
    assert spec == {"hooks": before["hooks"] | {"createContainer": []}}
    for odd in ({}, {"hooks": None}, {"hooks": {"prestart": None, "poststop": [1, {"args": 1}]}}):
        same = copy.deepcopy(odd)
        RemoveGuards().apply(same)
        assert same == odd


def test_our_hook_comes_last_again() -> None:
    """NVIDIA's runtime edits a bundle that has been edited before."""
    ours = AddHook("createContainer", "/hook", "/run/runai/x")
    spec: dict[str, Any] = {}
    ours.apply(spec)
    spec["hooks"]["createContainer"].append({"path": "/usr/bin/nvidia-cdi-hook"})
    ours.apply(spec)
    assert [hook["path"] for hook in spec["hooks"]["createContainer"]] == ["/usr/bin/nvidia-cdi-hook", "/hook"]


def test_a_bundle_for_another_container() -> None:
    """The hook of the first one would look for a share that is gone, and stop the second."""
    spec: dict[str, Any] = {}
    for name in ("one", "two"):
        for stage in ("prestart", "createContainer", "poststop"):
            AddHook(stage, "/hook", f"/run/runai/{name}").apply(spec)
    found = {stage: [hook["args"] for hook in hooks] for stage, hooks in spec["hooks"].items()}
    assert found == {stage: [["runai-hook", stage, "/run/runai/two"]] for stage in found}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "host.json").write_text(json.dumps(defaults() | {"hook": str(executable(tmp_path / "hook"))}))
    return tmp_path


def first_stage(bundle: Path, *environment: str, command: str = "create") -> dict[str, Any] | None:
    """What the first stage makes of a spec with that environment; None where it leaves the file as it is."""
    config = bundle / "config.json"
    text = json.dumps({"process": {"env": list(environment)}}).encode()
    config.write_bytes(text)
    line = CommandLine([command, "-b", str(bundle), "x"])
    guard(line, str(bundle / "host.json"), str(config), text, "/second")
    edited: dict[str, Any] = json.loads(config.read_bytes())
    return None if config.read_bytes() == text else edited


def test_the_first_stage_leaves_guards_alone(bundle: Path) -> None:
    spec = first_stage(bundle, "RUNAI_GPU_MEMORY=3g")
    assert spec
    hooks = {stage: [hook["args"] for hook in hooks] for stage, hooks in spec.pop("hooks").items()}
    assert hooks == {stage: [["runai-hook", "guard", "/second"]] for stage in GUARDED}
    assert spec == {"process": {"env": ["RUNAI_GPU_MEMORY=3g"]}}


def test_the_first_stage_leaves_other_containers_alone(bundle: Path) -> None:
    assert first_stage(bundle, "X=RUNAI_GPU_MEMORY") is None


def test_the_first_stage_refuses_what_can_not_be(bundle: Path) -> None:
    with pytest.raises(RefusalError, match="no amount"):
        first_stage(bundle, "RUNAI_GPU_MEMORY=much")
    with pytest.raises(RefusalError, match="restored"):
        first_stage(bundle, "RUNAI_GPU_MEMORY=3g", command="restore")
    (bundle / "hook").unlink()
    with pytest.raises(RefusalError, match="is missing"):
        first_stage(bundle, "RUNAI_GPU_MEMORY=3g")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"NVIDIA_VISIBLE_DEVICES": ""}, ""),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, ""),
        ({"NVIDIA_VISIBLE_DEVICES": "0,void"}, ""),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, ""),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, "all"),
        ({"NVIDIA_VISIBLE_DEVICES": "0,all"}, "all"),
        ({"NVIDIA_VISIBLE_DEVICES": "1"}, "device=1"),
        ({"NVIDIA_VISIBLE_DEVICES": " 1, GPU-x,,"}, "device=1,GPU-x"),
        ({"NVIDIA_VISIBLE_DEVICES": "0:1,MIG-1234"}, "device=0:1,MIG-1234"),
        ({"CUDA_VERSION": "8.0"}, "all"),
        ({"CUDA_VERSION": "8.0", "NVIDIA_VISIBLE_DEVICES": "0"}, "device=0"),
        ({"CUDA_VERSION": "8.0", "NVIDIA_REQUIRE_CUDA": ""}, "all"),
        ({"CUDA_VERSION": "12.0", "NVIDIA_REQUIRE_CUDA": "cuda>=12.0"}, ""),
    ],
)
def test_what_nvidias_hook_shows(environment: dict[str, str], expected: str) -> None:
    assert visible_devices({}, environment) == expected


def test_gpus_as_mounts() -> None:
    def mounts(*names: str, source: str = "/dev/null") -> dict[str, Any]:
        top = "/var/run/nvidia-container-devices/"
        return {"mounts": [{"source": source, "destination": top + name} for name in names]}

    assert visible_devices(mounts("1", "GPU-x"), {"NVIDIA_VISIBLE_DEVICES": "all"}) == "device=1,GPU-x"
    assert visible_devices(mounts("all"), {}) == "all"
    assert visible_devices(mounts("imex/0", "cdi/nvidia.com/gpu/0"), {}) == ""
    assert visible_devices(mounts("1", source="/x"), {}) == ""
