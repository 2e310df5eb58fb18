"""The plan and the edits as data: no root, no engine."""

from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runai_runtime import spec as specs
from runai_runtime.compat import ImageDriver
from runai_runtime.edits import AddDevice, AddHook, RemoveGuards
from runai_runtime.errors import RefusalError
from runai_runtime.grant import by_minor, by_wish, count_of, write_grant
from runai_runtime.host import Host, check
from runai_runtime.inventory import Inventory
from runai_runtime.plan import OURS, make_plan, preloaded, search_folders
from runai_runtime.toolkit import visible_devices

VERSION = "580.159.04"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose driver and libraries are empty files."""
    for name in ("driver/libcuda", "driver/libnvidia-ml", "driver/libnvidia-nvvm", "driver/libnvcuvid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.so.{VERSION}").write_text("driver")
    for name in ("fitted/libcuda.so.1", "fitted/libnvidia-ml.so.1", "bin/nvidia-smi", "bin/runai-hook"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("file")
    (tmp_path / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia0", "nvidia7"):
        (tmp_path / "dev" / name).write_text("")
    values = {"runtime": "/usr/sbin/runc", "hook": str(tmp_path / "bin/runai-hook"), "libvgpu": str(tmp_path / "ours")}
    return Host("", values | {"driver": {"devices": str(tmp_path / "dev")}})


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    def library(stem: str, soname: str, capability: str) -> dict[str, Any]:
        path = f"{tmp_path}/driver/{stem}.so.{VERSION}"
        return {"path": path, "names": [f"{stem}.so.{VERSION}", soname], "capability": capability}

    def gpu(index: int, minor: int) -> dict[str, Any]:
        uuid = f"GPU-{index}"
        return {
            "index": index,
            "minor": minor,
            "uuid": uuid,
            "name": "G",
            "total": 8 << 30,
            "reserved": 0,
            "context": 0,
        }

    return Inventory(
        {
            "driver": VERSION,
            "gpus": [gpu(0, 7), gpu(1, 0)],
            "libraries": [
                library("libcuda", "libcuda.so.1", "compute"),
                library("libnvidia-nvvm", "libnvidia-nvvm.so.4", "compute"),
                library("libnvidia-ml", "libnvidia-ml.so.1", "utility"),
                library("libnvcuvid", "libnvcuvid.so.1", "video"),
            ],
            "ours": {name: f"{tmp_path}/fitted/{name}" for name in OURS},
            "programs": [{"path": f"{tmp_path}/bin/nvidia-smi", "names": ["nvidia-smi"], "capability": "utility"}],
        }
    )


def lines(host: Host, inventory: Inventory, environment: dict[str, str] | None = None) -> list[list[str]]:
    search = search_folders(environment or {}, "/")
    plan = make_plan(host, inventory, inventory.gpus[:1], "/run/runai/x", "/rootfs", environment or {}, search)
    return [line.split("\t") for line in plan.text().splitlines()]


def test_a_plan(host: Host, inventory: Inventory) -> None:
    plan = lines(host, inventory)
    assert plan[:2] == [["runai-plan", "1"], ["rootfs", "/rootfs"]]
    assert [fields[:2] for fields in plan if fields[0] in ("real", "ours")] == [
        ["real", "libcuda.so.1"],
        ["ours", "libcuda.so.1"],
        ["real", "libnvidia-ml.so.1"],
        ["ours", "libnvidia-ml.so.1"],
    ]
    sources = {fields[1]: fields[2] for fields in plan if fields[0] == "library"}
    assert sources[f"libcuda.so.{VERSION}"] == sources["libcuda.so.1"] == inventory.ours["libcuda.so.1"]
    assert sources["libnvidia-nvvm.so.4"].endswith(f"driver/libnvidia-nvvm.so.{VERSION}")
    assert "libnvcuvid.so.1" not in sources
    # The GPU with index 0 has the minor number 7 here: NVML's order is not that of the nodes.
    assert [fields[1] for fields in plan if fields[0] == "device"][-1] == "/dev/nvidia7"
    assert next(fields for fields in plan if fields[0] == "program")[:2] == ["program", "/usr/bin/nvidia-smi"]


def test_an_image_with_its_own_libcuda(host: Host, inventory: Inventory, tmp_path: Path) -> None:
    (tmp_path / "fitted/other").write_text("file")
    image = ImageDriver("/opt/libcuda.so.590.1", "8:1:2:3:4.5", str(tmp_path / "fitted/other"))
    text = make_plan(host, inventory, inventory.gpus[:1], "/run/runai/x", "/rootfs", {}, image=image).text()
    plan = [line.split("\t") for line in text.splitlines()]
    assert plan[2] == ["image-real", "libcuda.so.1", "/opt/libcuda.so.590.1", "8:1:2:3:4.5"]
    assert plan[3] == ["ours", "libcuda.so.1", image.ours]
    assert plan[4][:2] == ["real", "libnvidia-ml.so.1"]
    sources = {fields[1]: fields[2] for fields in plan if fields[0] == "library"}
    assert sources[f"libcuda.so.{VERSION}"] == sources["libcuda.so.1"] == image.ours
    assert sources["libnvidia-ml.so.1"] == inventory.ours["libnvidia-ml.so.1"]


def test_capabilities(host: Host, inventory: Inventory) -> None:
    for wanted in ("compute,video", "video", "all"):
        names = [fields[1] for fields in lines(host, inventory, {"NVIDIA_DRIVER_CAPABILITIES": wanted})]
        assert "libnvcuvid.so.1" in names
        assert "libcuda.so.1" in names


def test_the_folders_of_ld_library_path(host: Host, inventory: Inventory) -> None:
    assert search_folders({}, "/") == search_folders({"LD_LIBRARY_PATH": ""}, "/") == []
    assert search_folders({"LD_LIBRARY_PATH": "x:/a:"}, "/srv") == ["/srv/x", "/a", "/srv/"]
    assert "/x/lib64" in search_folders({"LD_LIBRARY_PATH": "/x/$LIB"}, "/")
    assert search_folders({"LD_LIBRARY_PATH": "$ORIGIN/../l"}, "/", "/usr/bin/x") == ["/$ORIGIN/../l", "/usr/bin/../l"]
    path = {"LD_LIBRARY_PATH": "${ORIGIN}/x", "PATH": "/bin:rel"}
    assert search_folders(path, "/srv", "x") == ["/srv/${ORIGIN}/x", "/bin/x", "/srv/rel/x"]
    assert search_folders(path, "/srv", "./x") == ["/srv/${ORIGIN}/x", "/srv/./x"]
    assert search_folders(path, "/srv") == ["/srv/${ORIGIN}/x"]
    plan = lines(host, inventory, {"LD_LIBRARY_PATH": "/a:relative::/b;/c"})
    assert [fields[1] for fields in plan if fields[0] == "search"] == ["/a", "/relative", "/", "/b", "/c", "/b;/c"]


@pytest.mark.parametrize(
    ("value", "files"),
    [
        ("", []),
        ("libcuda.so.1", []),
        ("/a/b.so", ["/a/b.so"]),
        ("/a.so:/b.so  c/d.so", ["/a.so", "/b.so", "/srv/c/d.so"]),
        ("$ORIGIN/x.so", ["/srv/$ORIGIN/x.so", "/usr/bin/x.so"]),
        ("/a.so\r/b.so", ["/a.so\r/b.so", "/a.so", "/b.so"]),
    ],
)
def test_preloaded(value: str, files: list[str]) -> None:
    assert preloaded({"LD_PRELOAD": value}, "/srv", "/usr/bin/p") == files


@pytest.mark.parametrize("folder", ["/drv$x", "/drv$", "/drv/$LIBRARY", "/drv/$LIB_", "/drv/${LIB", "/$ORIGINS/x"])
def test_a_dollar_in_a_folders_own_name(folder: str) -> None:
    assert search_folders({"LD_LIBRARY_PATH": folder}, "/", "/usr/bin/x") == [folder]
    assert preloaded({"LD_PRELOAD": f"{folder}/x.so"}, "/", "/usr/bin/x") == [f"{folder}/x.so"]


def test_the_loaders_names_beside_a_dollar() -> None:
    found = search_folders({"LD_LIBRARY_PATH": "/$x/$PLATFORM/$LIB$"}, "/")
    assert "/$x/haswell/lib64$" in found
    assert len(found) == 1 + 3 * 4


def test_an_origin_that_names_itself() -> None:
    path = {"LD_LIBRARY_PATH": "$ORIGIN/x", "PATH": "/$ORIGIN:/$LIB"}
    assert search_folders(path, "/", "x") == ["/$ORIGIN/x", "/$LIB/x"]


@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "LD_PRELOAD"])
@pytest.mark.parametrize("value", ["/drv\t", "/none\n/drv", "/drv/x\n", "$ORIGIN/\t"])
def test_a_separator_that_only_some_loaders_know(name: str, value: str) -> None:
    """It can't be told to the hook, and must not hide a folder from it."""
    find = search_folders if name == "LD_LIBRARY_PATH" else preloaded
    with pytest.raises(RefusalError, match=f"^{name} has a tab or a line break"):
        find({name: value}, "/", "/usr/bin/x")


@pytest.mark.parametrize("code", [0xD800, 0xDC7F, 0xDD00, 0xDFFF])
def test_a_path_that_no_file_can_have(host: Host, inventory: Inventory, tmp_path: Path, code: int) -> None:
    """JSON can write one; nothing is left behind where it can't be written down."""
    letter = chr(code)
    host.state = str(tmp_path / "state")
    with pytest.raises(RefusalError, match="is no text"):
        lines(host, inventory, {"LD_LIBRARY_PATH": f"/{letter}"})
    with pytest.raises(UnicodeEncodeError):
        write_grant(host, "one", "/run", [], letter, {})
    assert not any(path.name.startswith((".", "one")) for path in Path(host.state).iterdir())


@pytest.mark.parametrize("many", [20_000, 2])
def test_an_origin_times_a_long_path(many: int) -> None:
    """An image can write what would take all of the host's memory."""
    words = ":".join(f"$ORIGIN/{number}" for number in range(10_000))
    path = {"LD_LIBRARY_PATH": words, "PATH": ":".join(f"/{number}" for number in range(many))}
    with pytest.raises(RefusalError, match=r"^LD_LIBRARY_PATH can mean more than"):
        search_folders(path, "/", "x")


def test_a_path_with_a_line_break_is_refused(host: Host, inventory: Inventory) -> None:
    with pytest.raises(RefusalError, match="line break"):
        make_plan(host, inventory, inventory.gpus, "/run/runai/x", "/root\nfs", {})


def test_edits_are_made_once() -> None:
    null = os.stat("/dev/null")
    edits: list[AddHook | AddDevice] = [
        AddHook("prestart", "/hook", "/run/runai/x"),
        AddDevice("/dev/null", null, "/dev/nvidia0"),
    ]
    spec: dict[str, Any] = {"hooks": {"prestart": [{"path": "/other"}]}, "linux": {"devices": None}, "unknown": 1}
    for edit in edits:
        edit.apply(spec)
    once = copy.deepcopy(spec)
    for edit in edits:
        edit.apply(spec)
    assert spec == once
    assert spec["unknown"] == 1
    assert [hook["path"] for hook in spec["hooks"]["prestart"]] == ["/other", "/hook"]
    assert spec["hooks"]["prestart"][1]["env"]
    assert spec["linux"]["devices"][0]["path"] == "/dev/nvidia0"
    assert spec["linux"]["resources"]["devices"] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    ]


def test_which_gpus(inventory: Inventory) -> None:
    def chosen(wish: str) -> list[int | str]:
        return [gpu.index for gpu in by_wish(inventory, wish)]

    assert chosen("device=0") == chosen("GPU-0") == chosen("0,") == [0]
    assert chosen("all") == chosen("0,1") == [0, 1]
    assert [count_of(inventory, wish) for wish in (None, "1", "2", "all", "0,1", "GPU-0")] == [1, 1, 2, 0, 0, 0]
    assert chosen("1,0,1") == [1, 0]
    assert [gpu.index for gpu in by_minor(inventory, [7], set())] == [0]
    for wish in ("", "0", "3", "99999999999999999999", "x", ",", "2,3", "device=", "ALL", "-1"):
        with pytest.raises(RefusalError):
            count_of(inventory, wish) or by_wish(inventory, wish)
    with pytest.raises(RefusalError, match="nvidia3"):
        by_minor(inventory, [3], set())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: json_values | st.fixed_dictionaries({}, optional={"env": json_values, "devices": json_values})
            for key in ("process", "linux", "hooks", "mounts", "annotations", "root")
        },
    )
)
def test_any_spec_can_be_read(spec: dict[str, Any]) -> None:
    specs.environment_of(spec)
    specs.annotations_of(spec)
    specs.device_minors(spec)
    specs.has_nvidia_hook(spec)
    visible_devices(spec, {})
    RemoveGuards().apply(spec)


def test_what_a_spec_grants() -> None:
    spec = {
        "linux": {"devices": [{"path": "/dev/nvidia3"}, {"path": "/dev/nvidiactl"}, {"path": 5}]},
        "mounts": [{"destination": "/dev/nvidia1"}, {"destination": "/dev/nvidia٣"}],
        "hooks": {"prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook"}]},
        "process": {"env": ["A=1", "A=2", "B", 3]},
    }
    assert specs.device_minors(spec) == [1, 3]
    assert specs.mounted_beside(spec, ["nvidia1"]) == ["/dev"]
    assert specs.has_nvidia_hook(spec)
    assert specs.environment_of(spec) == {"A": "2"}


@given(json_values)
def test_any_configuration_can_be_checked(values: object) -> None:
    assert isinstance(check(values), str)


def test_the_shim_imports_little() -> None:
    """The modules that a command which is only passed on loads: os alone would cost 1.5 ms of the 7 that it has."""
    script = "import sys; sys.path.append(sys.argv[1]); import runai_runtime.shim; print(*sys.modules)"
    folder = str(Path(__file__).parents[2])
    command = ["/usr/bin/python3", "-IS", "-c", script, folder]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.startswith("runai_runtime.")} == {
        *("runai_runtime.shim", "runai_runtime.commandline", "runai_runtime.errors"),
    }
    assert not {"os", "json", "typing", "re", "collections"} & set(loaded)


def test_the_slow_path_imports_nothing_that_is_rich() -> None:
    script = "import sys; sys.path.append(sys.argv[1]); import runai_runtime.prepare; print(*sys.modules)"
    command = ["/usr/bin/python3", "-IS", "-c", script, str(Path(__file__).parents[2])]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"typing", "dataclasses", "inspect", "subprocess", "pathlib", "ctypes", "pynvml"} & set(loaded)
