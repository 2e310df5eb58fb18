"""CDI specifications: what counts as one, which is for which GPU, and what any file can do to a container."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runai_runtime import inventory as inventories
from runai_runtime.agent import CloseOtherDoors
from runai_runtime.cdi import read_folders
from runai_runtime.cdi_edits import CdiEdits, UnusableError, edits_for
from runai_runtime.cdi_spec import LARGEST, VERSIONS, FormatError, read_spec
from runai_runtime.host import Host
from runai_runtime.request import MEMORY
from runai_runtime.rootfs import mount_points
from runai_runtime.spec import environment_of, section
from tests.toolkit.broken_cdi import BROKEN, WAS_HERE
from tests.unit.prepared import Prepared, gpu
from tests.unit.test_properties import junk, mostly

GPUS = [gpu(0), gpu(1)]


def device(name: str, **edits: Any) -> dict[str, Any]:
    return {"name": name, "containerEdits": edits or {"env": [f"DEVICE={name}"]}}


def specification(*devices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": list(devices) or [device("0")]} | more


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """An earlier and a later one."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.mkdir()
    return [str(path) for path in paths]


def write(folder: str, name: str, values: object) -> Path:
    path = Path(folder, name)
    dump: Callable[[object], str] = yaml.safe_dump if name.endswith(".yaml") else json.dumps
    path.write_text(dump(values))
    return path


def named(found: dict[str, Any]) -> dict[str, str]:
    """The device that each GPU has, and the name of its file."""
    return {uuid: f"{one['name']} of {Path(one['file']).name}" for uuid, one in found["gpus"].items()}


# What is one


FULL = specification(
    device(
        "0",
        env=["A=1", "B="],
        deviceNodes=[{"path": "/dev/x", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438}],
        mounts=[{"hostPath": "/", "containerPath": "/x", "type": "bind", "options": ["ro", "bind"]}],
        hooks=[{"hookName": "prestart", "path": "/bin/sh", "args": ["sh", ""], "env": ["A=1"], "timeout": 5}],
        additionalGids=[0, 5],
        intelRdt={"closID": "x", "enableCMT": True},
        annotations=None,
    ),
    device("GPU-1", deviceNodes=[{"path": "/dev/null", "permissions": "rw", "uid": 1, "gid": 2}]),
    cdiVersion="0.7.0",
    annotations={"a": "b"},
    containerEdits={"mounts": [{"hostPath": "tmpfs", "containerPath": "/y", "type": "tmpfs"}]},
)
del FULL["devices"][0]["containerEdits"]["annotations"]


@pytest.mark.parametrize("ending", ["json", "yaml"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_whole_one(version: str, ending: str) -> None:
    values = FULL | {"cdiVersion": version}
    text = (json.dumps if ending == "json" else yaml.safe_dump)(values).encode()
    if VERSIONS[version] >= 7:
        assert read_spec(f"x.{ending}", text) == values
    else:
        with pytest.raises(FormatError, match="which its cdiVersion doesn't have"):
            read_spec(f"x.{ending}", text)


def at(values: Any, *path: Any) -> Any:
    for key in path:
        values = values[key]
    return values


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["cdiVersion"], "2.0.0"),
        (["cdiVersion"], 0.5),
        (["kind"], ""),
        (["devices"], []),
        (["devices", 0, "name"], "a b"),
        (["devices", 0, "name"], "0\n"),
        (["devices", 1, "name"], "0"),
        (["devices", 0, "containerEdits"], {}),
        (["devices", 0, "containerEdits", "unknown"], []),
        (["devices", 0, "containerEdits", "env"], ["=x"]),
        (["devices", 0, "containerEdits", "env"], ["A=\0"]),
        (["devices", 0, "containerEdits", "deviceNodes", 0, "path"], "dev/x"),
        (["devices", 0, "containerEdits", "deviceNodes", 0, "type"], "x"),
        (["devices", 0, "containerEdits", "deviceNodes", 0, "major"], -1),
        (["devices", 0, "containerEdits", "deviceNodes", 0, "major"], 1.0),
        (["devices", 0, "containerEdits", "deviceNodes", 0, "minor"], True),
        (["devices", 0, "containerEdits", "deviceNodes", 0, "permissions"], "rx"),
        (["devices", 0, "containerEdits", "mounts", 0, "containerPath"], "/a\nb"),
        (["devices", 0, "containerEdits", "mounts", 0], {"hostPath": "/", "containerPath": "/x"}),
        (["devices", 0, "containerEdits", "hooks", 0, "hookName"], "later"),
        (["devices", 0, "containerEdits", "hooks", 0, "path"], "nvidia-ctk"),
        (["devices", 0, "containerEdits", "hooks", 0, "args"], ["\ud800"]),
        (["devices", 0, "containerEdits", "additionalGids"], [1 << 32]),
        (["containerEdits"], None),
    ],
)
def test_what_is_none(path: list[Any], value: object) -> None:
    values = copy.deepcopy(FULL)
    at(values, *path[:-1])[path[-1]] = value
    with pytest.raises(FormatError) as refused:
        read_spec("x.json", json.dumps(values).encode())
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"kind: a\nkind: b\n",
        b"{kind: a}\n---\n{kind: b}\n",
        b"a: &a {b: c}\nd:\n  <<: [*a, *a]\n",
        b"a: &a {b: c}\nd:\n  !!merge x: [*a, *a]\n",
        b"kind: !!str nvidia.com/gpu\n",
        b"? [a]\n: b\n",
        b"kind: 2001-01-01\n",
        b"kind: .nan\n",
        b"kind: '\\x00'\n",
        b"@",
        b"kind: \x00",
        b"[" * 17 + b"]" * 17,
    ],
)
def test_what_is_no_yaml_for_us(text: bytes) -> None:
    with pytest.raises(FormatError):
        read_spec("x.yaml", text)


def test_references_count_as_what_they_stand_for() -> None:
    """Anchors are fine, until they stand for too much."""
    edits = "containerEdits: &e {env: [A=%s]}" % ("x" * 1000)
    lines = ["cdiVersion: 0.6.0", "kind: nvidia.com/gpu", edits, "devices:"]
    few = [*lines, *(f"- {{name: g{n}, containerEdits: *e}}" for n in range(10))]
    many = [*lines, *(f"- {{name: g{n}, containerEdits: *e}}" for n in range(LARGEST // 1000))]
    assert len(read_spec("x.yaml", "\n".join(few).encode())["devices"]) == 10
    with pytest.raises(FormatError, match="stands for more than"):
        read_spec("x.yaml", "\n".join(many).encode())


# Which one counts


@pytest.mark.parametrize(("name", "uuid"), [("0", "GPU-0"), ("gpu0", "GPU-0"), ("GPU-1", "GPU-1"), ("1", "GPU-1")])
def test_the_names_of_a_gpu(folders: list[str], name: str, uuid: str) -> None:
    write(folders[0], "x.yaml", specification(device(name), device("all"), cdiVersion="0.6.0"))
    assert named(read_folders(folders, GPUS)) == {uuid: f"{name} of x.yaml"}


def test_its_uuid_before_its_index(folders: list[str]) -> None:
    write(folders[0], "x.yaml", specification(device("0"), device("GPU-0"), device("1")))
    assert named(read_folders(folders, GPUS)) == {"GPU-0": "GPU-0 of x.yaml", "GPU-1": "1 of x.yaml"}


def test_the_later_folder_and_conflicts(folders: list[str]) -> None:
    write(folders[0], "x.json", specification(device("0"), device("1")))
    write(folders[1], "y.json", specification(device("0")))
    assert named(read_folders(folders, GPUS)) == {"GPU-0": "0 of y.json", "GPU-1": "1 of x.json"}
    assert named(read_folders(folders[::-1], GPUS)) == {"GPU-0": "0 of x.json", "GPU-1": "1 of x.json"}
    write(folders[1], "z.json", specification(device("0")))
    found = read_folders(folders, GPUS)
    assert named(found) == {"GPU-1": "1 of x.json"}
    assert found["faults"] == [f'both "{folders[1]}/y.json" and "{folders[1]}/z.json" have the device "0"']


def test_which_files_count(folders: list[str]) -> None:
    for name in ("x.yml", "x.json.bak", "json", "x.toml"):
        Path(folders[0], name).write_text("{")
    write(folders[0], "x.json", specification(kind="example.com/gpu"))
    found = read_folders([*folders, "/nowhere/cdi", f"{folders[0]}/json"], GPUS)
    assert found["gpus"] == {}
    assert found["faults"] == [f'the folder "{folders[0]}/json" can\'t be read: a part of its path is no folder']


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_does_harm(folders: list[str], name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether PyYAML has its part in C, or not."""
    if not compiled:
        monkeypatch.delattr(yaml, "CSafeLoader")
    BROKEN[name](Path(folders[0], name))
    write(folders[0], "x.yaml", specification())
    found = read_folders(folders, GPUS)
    assert named(found) == {"GPU-0": "0 of x.yaml"}
    assert len(found["faults"]) == 1
    assert name in found["faults"][0] and found["faults"][0].isprintable()
    assert not WAS_HERE.exists()


def test_what_changed_is_seen(folders: list[str], tmp_path: Path) -> None:
    values = {"runtime": "/r", "hook": "/h", "libvgpu": "/l"}
    host = Host("", values | {"cdi_spec_dirs": folders})

    def is_fresh() -> bool:
        return inventories.is_fresh(found, host)

    found = read_folders(folders, GPUS)
    assert is_fresh()
    path = write(folders[1], "x.yaml", specification())
    assert not is_fresh()
    found = read_folders(folders, GPUS)
    assert is_fresh()
    path.write_text("{}")
    assert not is_fresh()
    found = read_folders(folders, GPUS)
    path.rename(tmp_path / "x.yaml")
    assert not is_fresh()
    found = read_folders(folders, GPUS)
    assert is_fresh()
    assert not inventories.is_fresh(found, Host("", values))


# What it does to a container


def applied(*parts: dict[str, Any], spec: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = {} if spec is None else spec
    CdiEdits(list(parts)).apply(spec)
    return spec


def test_the_edits() -> None:
    parts = [FULL["containerEdits"], *(one["containerEdits"] for one in FULL["devices"])]
    before = {"process": {"env": ["B=old", "C=3", "A=old"]}, "mounts": [{"destination": "/x/y"}, {"destination": "/x"}]}
    spec = applied(*parts, spec=before)
    assert spec["process"] == {"env": ["C=3", "A=1", "B="], "user": {"additionalGids": [5]}}
    assert [mount["destination"] for mount in spec["mounts"]] == ["/y", "/x", "/x/y"]
    node = {"type": "c", "major": 1, "minor": 3}
    assert spec["linux"]["devices"] == [
        {"path": "/dev/x", **node, "fileMode": 438},
        {"path": "/dev/null", **node, "uid": 1, "gid": 2},
    ]
    rules = [{"allow": True, **node, "access": access} for access in ("rwm", "rw")]
    assert spec["linux"]["resources"]["devices"] == rules
    assert spec["linux"]["intelRdt"] == {"closID": "x", "enableCMT": True}
    assert spec["hooks"] == {"prestart": [{"path": "/bin/sh", "args": ["sh", ""], "timeout": 5, "env": ["A=1"]}]}
    again = copy.deepcopy(spec)
    assert applied(*parts, spec=again) == spec


def test_a_hook_has_an_environment_of_its_own() -> None:
    spec = applied({"hooks": [{"hookName": "createContainer", "path": "/bin/sh"}]})
    assert all(pair.startswith("PATH=") for pair in spec["hooks"]["createContainer"][0]["env"])
    assert spec["hooks"]["createContainer"][0]["env"]


def test_a_request_of_its_own_is_none() -> None:
    assert environment_of(applied({"env": [f"{MEMORY}=8g", "A=1"]})) == {"A": "1"}


def test_the_agent_takes_other_doors_out_of_it() -> None:
    """As nvidia-ctk lists them with each GPU."""
    numbers = {"/dev/nvidia0": (195, 0), "/dev/dri/card1": (226, 1), "/dev/nvidia-modeset": (195, 254)}
    nodes = [{"path": path, "hostPath": "/dev/null", "major": n[0], "minor": n[1]} for path, n in numbers.items()]
    spec = applied({"deviceNodes": nodes, "mounts": [{"hostPath": "/dev", "containerPath": "/dev/dri/by-path"}]})
    doors = CloseOtherDoors([0])
    doors.apply(spec)
    assert [node["path"] for node in spec["linux"]["devices"]] == ["/dev/nvidia0"]
    allowed = [rule for rule in spec["linux"]["resources"]["devices"] if rule["allow"]]
    assert [(rule["major"], rule["minor"]) for rule in allowed] == [(195, 0)]
    assert spec["mounts"] == []
    assert {*numbers, "/dev/dri/by-path"} - {"/dev/nvidia0"} <= set(doors.removed)


@pytest.mark.parametrize(
    "edits",
    [
        {"mounts": [{"hostPath": "/nowhere/x", "containerPath": "/x", "options": ["bind"]}]},
        {"hooks": [{"hookName": "prestart", "path": "/nowhere/x"}]},
        {"deviceNodes": [{"path": "/nowhere/x"}]},
        {"deviceNodes": [{"path": "/etc/passwd"}]},
        {"deviceNodes": [{"path": "/dev/null", "type": "b"}]},
    ],
)
def test_what_this_host_does_not_have(edits: dict[str, Any]) -> None:
    with pytest.raises(UnusableError):
        CdiEdits([edits])


def test_mount_points_that_are_made(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/lib/there").touch()
    (tmp_path / "out").symlink_to("/../../etc")
    targets = ["/lib/there", "/lib/new", "/opt/a/b/new", "/usr/../opt/a/x", "/out/passwd", "/lib/there/below"]
    expected = ["/usr/lib/new", "/opt", "/opt/a", "/opt/a/b", "/opt/a/b/new", "/opt", "/opt/a", "/opt/a/x"]
    # A link is never removed, so it may be in the list; where it leads is not known.
    assert mount_points(str(tmp_path), targets) == [*expected, "/out", "/out/passwd"]
    assert mount_points(str(tmp_path / "nowhere"), targets) == []


# Any file at all

paths = mostly(
    st.sampled_from(["/", "/dev/null", "/bin/sh", "/dev/nvidia0", "/usr/lib/libcuda.so.1"]),
    st.sampled_from(["/nowhere", "x", "/a\nb"]) | st.text(),
)
sources = mostly(st.sampled_from(["/", "/dev/null", "/bin/sh"]), paths)
variables = mostly(
    st.sampled_from(["A=1", "NVIDIA_VISIBLE_DEVICES=void", f"{MEMORY}=8g", "LD_LIBRARY_PATH=/a:$LIB"]), st.text()
)
parts = {
    "env": variables,
    "deviceNodes": st.fixed_dictionaries(
        {"path": paths, "hostPath": mostly(st.just("/dev/null"), paths)},
        optional={"minor": st.integers(-1, 9), "type": st.sampled_from("ccpbx"), "permissions": st.just("rw")},
    ),
    "mounts": st.fixed_dictionaries(
        {"hostPath": sources, "containerPath": paths, "options": st.just(["bind"])}, optional={"type": st.just("bind")}
    ),
    "hooks": st.fixed_dictionaries(
        {"hookName": st.sampled_from(["prestart", "createContainer", "poststop"]), "path": sources},
        optional={"args": st.lists(st.text(max_size=3), max_size=2), "env": st.lists(variables, max_size=1)},
    ),
    "additionalGids": st.integers(0, 9),
}
edits = st.fixed_dictionaries({}, optional={key: st.lists(one, max_size=2) for key, one in parts.items()})
devices = st.builds(
    lambda name, edits: {"name": name, "containerEdits": edits},
    st.sampled_from(["0", "1", "GPU-0", "all"]),
    mostly(edits.filter(bool), edits | junk),
)
files = st.fixed_dictionaries(
    {
        "cdiVersion": mostly(st.sampled_from(["0.7.0", "1.0.0"]), st.sampled_from(["0.3.0", "2"])),
        "kind": st.just("nvidia.com/gpu"),
        "devices": st.lists(devices, min_size=1, max_size=3, unique_by=lambda one: one["name"]),
    },
    optional={"containerEdits": mostly(edits, junk)},
)
texts = mostly(
    st.one_of(
        files.map(lambda values: ("x.json", json.dumps(values).encode())),
        files.map(lambda values: ("y.yaml", yaml.safe_dump(values).encode("utf-8", "surrogatepass"))),
    ),
    st.tuples(
        st.sampled_from(["x.json", "y.yaml"]),
        st.text(alphabet="&*a: []{},-\n!<", max_size=40).map(str.encode) | st.binary(max_size=40),
    ),
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    return Prepared(tmp_path, monkeypatch)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(texts, min_size=1, max_size=2))
def test_any_file(host: Prepared, written: list[tuple[str, bytes]]) -> None:
    """A container has its share, whatever the files say, or a sentence; and the spec what a runtime can read."""
    folder = host.folder / "cdi"
    folder.mkdir(exist_ok=True)
    for name, text in written:
        (folder / name).write_bytes(text)
    found = read_folders([str(folder)], GPUS)
    assert all(fault.isprintable() for fault in found["faults"])
    host.inventory.cdi = json.loads(json.dumps(found))
    spec = copy.deepcopy(host.usual)
    spec["process"]["env"].append(f"{MEMORY}=3g")
    done = host.create(spec)
    assert done.refusal.isprintable()
    assert (done.limits is None) is bool(done.refusal)
    if done.limits is not None:
        assert list(done.limits.values()) == [3 << 30]
        is_readable(done.spec)
    for path in folder.iterdir():
        path.unlink()


def is_readable(spec: dict[str, Any]) -> None:
    """Of the right types, as the OCI's Go structures have them."""
    assert all(isinstance(pair, str) and "\0" not in pair for pair in spec["process"]["env"])
    assert environment_of(spec)[MEMORY] == "3g"
    for mount in spec["mounts"]:
        assert mount["destination"].startswith("/") and isinstance(mount["source"], str) and mount["type"]
    for node in section(spec, "linux").get("devices", []):
        assert node["path"].startswith("/") and type(node.get("major", 0)) is int and node["type"] in "bcup"
    for stage in ("prestart", "createContainer", "poststop"):
        assert spec["hooks"][stage][-1]["args"][:2] == ["runai-hook", stage]
        assert all(hook["path"].startswith("/") and hook["env"] for hook in spec["hooks"][stage])


def test_a_gpu_without_a_device_has_all_from_the_driver(host: Prepared, folders: list[str]) -> None:
    write(folders[0], "x.yaml", specification(device("0")))
    host.inventory.cdi = read_folders(folders, GPUS)
    assert edits_for(host.inventory, host.inventory.gpus[:1]).variables == ["DEVICE=0"]
    for gpus, variable in (("device=0", "0"), ("device=1", None), ("2", None)):
        spec = copy.deepcopy(host.usual)
        spec["process"]["env"] += [f"{MEMORY}=3g", f"RUNAI_GPUS={gpus}"]
        done = host.create(spec)
        assert done.limits
        assert environment_of(done.spec).get("DEVICE") == variable
