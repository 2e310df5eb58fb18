"""Whatever a container and the host's configuration say: a sentence or a share, never a traceback, and never a
container without the limit that it asked for.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runai_runtime.errors import RefusalError
from runai_runtime.host import check
from runai_runtime.request import GPUS, GUARANTEE, LIMIT, MEMORY, NAMES, read_request
from runai_runtime.spec import section
from runai_runtime.toolkit import VISIBLE, visible_devices
from tests.unit.prepared import TOTAL, Prepared

SHARES = {"3g": 3 << 30, "512m": 512 << 20, "25%": TOTAL // 4, "0.5": TOTAL // 2, "1": TOTAL, "2097152": 2 << 20}

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def mostly(good: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One in eight is OTHER: of many such, most containers are still whole enough to get a share."""
    return st.integers(0, 7).flatmap(lambda number: good if number else other)


amounts = mostly(st.sampled_from([*SHARES]), st.text(max_size=6))
wishes = mostly(
    st.sampled_from(["all", "0", "1", "0,1", "GPU-1", "2", "device=1"]),
    st.sampled_from(["none", "void", "7", "MIG-1", "0:1", "", ","]) | st.text(max_size=4),
)
nothing: st.SearchStrategy[Any] = st.just({})
asks = st.one_of(
    nothing,
    *(st.fixed_dictionaries({name: amounts}) for name in (MEMORY, LIMIT, GUARANTEE)),
    st.fixed_dictionaries({LIMIT: amounts, GUARANTEE: amounts}),
)
gpus = mostly(nothing, st.fixed_dictionaries({}, optional={GPUS: wishes, VISIBLE: wishes}))
paths = st.fixed_dictionaries({}, optional={name: st.text(max_size=10) for name in ("LD_LIBRARY_PATH", "LD_PRELOAD")})
odd = st.dictionaries(st.sampled_from([MEMORY, LIMIT, GUARANTEE, GPUS, "RUNAI_GPU_MEMROY"]), amounts, max_size=2)
requests = st.tuples(asks, gpus, mostly(nothing, paths), mostly(nothing, odd)).map(
    lambda parts: {name: value for part in parts for name, value in part.items()}
)
nodes = st.fixed_dictionaries(
    {"path": st.sampled_from(["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/x"])},
    optional={
        "type": st.sampled_from(["c", "b"]),
        "major": st.sampled_from([195, 226]),
        "minor": st.integers(0, 2) | junk,
    },
)
mounts = st.fixed_dictionaries(
    {"destination": st.sampled_from(["/dev/nvidia1", "/var/run/nvidia-container-devices/0", "/x"]) | junk},
    optional={"source": st.sampled_from(["/dev/null", "/x"]) | junk},
)
hooks = st.fixed_dictionaries({"path": st.sampled_from(["/usr/bin/nvidia-container-runtime-hook", "/x"]) | junk})
stages = st.dictionaries(
    st.sampled_from(["prestart", "createContainer", "poststop"]), st.lists(hooks, max_size=2) | junk
)
good = st.fixed_dictionaries(
    {},
    optional={
        "default_share": st.sampled_from([*SHARES]),
        "largest_share": st.sampled_from([*SHARES]),
        "without_request": st.sampled_from(["leave", "default", "refuse"]),
        "log": st.sampled_from(["", "/proc/none/log"]),
    },
)
broken = st.dictionaries(
    st.sampled_from(["default_share", "largest_share", "without_request", "log"]), junk, max_size=1
)
configurations = mostly(good, st.builds(lambda one, other: one | other, good, broken))


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Any]:
    """Changes of what `runc spec` writes, as a merge patch: env and annotations, GPUs, and anything anywhere."""
    environment, annotations = draw(requests), draw(mostly(nothing, requests))
    patch: dict[str, Any] = {"annotations": annotations, "hooks": draw(stages)}
    patch["process"] = {"env": [f"{MEMORY}=1"] if MEMORY in environment else []}  # the last one counts
    patch["process"]["env"] += [f"{name}={value}" for name, value in environment.items()]
    patch["linux"] = {"devices": draw(mostly(nothing.map(list), st.lists(nodes, max_size=2)))}
    patch["mounts"] = draw(mostly(nothing.map(list), st.lists(mounts, max_size=2)))
    for key in ("process", "linux"):
        patch[key] |= draw(mostly(nothing, st.dictionaries(st.text(max_size=6), junk, max_size=1)))
    sections = st.sampled_from(["process", "linux", "mounts", "hooks", "root", "annotations"])
    patch |= draw(mostly(nothing, st.dictionaries(sections | st.text(max_size=6), junk, max_size=1)))
    return patch


def merged(usual: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    spec = copy.deepcopy(usual)
    for key, value in patch.items():
        spec[key] = spec[key] | value if isinstance(spec.get(key), dict) and isinstance(value, dict) else value
    return spec


def asked(spec: dict[str, Any]) -> dict[str, str]:
    """The container's variables of ours, read by another rule than the runtime's own."""
    annotations = spec.get("annotations")
    items = annotations.items() if isinstance(annotations, dict) else ()
    named = {key: value for key, value in items if isinstance(value, str)}
    if NAMES & named.keys():
        return {name: named[name] for name in NAMES & named.keys()}
    environment = spec["process"].get("env") if isinstance(spec.get("process"), dict) else None
    texts = [text for text in environment if isinstance(text, str)] if isinstance(environment, list) else []
    pairs = [text.split("=", 1) for text in texts if "=" in text]
    return {name: value for name, value in pairs if name in NAMES}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    return Prepared(tmp_path, monkeypatch)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(containers(), configurations)
def test_any_container_on_any_host(host: Prepared, patch: dict[str, Any], configuration: dict[str, Any]) -> None:
    host.configure(**configuration)
    spec = merged(host.usual, patch)
    done = host.create(spec)
    assert done.refusal.isprintable()
    wanted = asked(spec)  # of a wrong type: no request, and the low-level runtime refuses it
    if done.refusal:
        return
    if done.limits is None:
        assert not wanted
        assert done.spec == spec
        return
    assert check(LEAST | configuration) == ""
    most = wanted.get(LIMIT) or wanted.get(MEMORY) or wanted.get(GUARANTEE) or configuration.get("default_share")
    largest = SHARES[configuration.get("largest_share", "1")] if configuration.get("largest_share") in SHARES else TOTAL
    for limit in done.limits.values():
        assert limit <= min(SHARES.get(str(most), TOTAL), largest)
    is_whole(spec, done.spec)


LEAST = {"runtime": "/r", "hook": "/h", "libvgpu": "/l"}


def is_whole(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What a runtime needs to find in an edited spec: our hooks last, with an environment; nothing lost but what was
    taken out on purpose.
    """
    for stage in ("prestart", "createContainer", "poststop"):
        ours = after["hooks"][stage][-1]
        assert ours["args"][:2] == ["runai-hook", stage]
        assert ours["path"].startswith("/")
        assert ours["env"]
        assert after["hooks"][stage][:-1] == ((before.get("hooks") or {}).get(stage) or [])
    for key, value in before.items():
        if key not in ("hooks", "linux"):
            assert after[key] == value
    for key, value in section(before, "linux").items():
        if key not in ("devices", "resources", "seccomp"):
            assert after["linux"][key] == value


@given(requests, requests | nothing)
def test_any_request(environment: dict[str, str], annotations: dict[str, str]) -> None:
    try:
        request = read_request(annotations, environment)
    except RefusalError:
        return
    source = annotations if NAMES & annotations.keys() else environment
    assert (request is None) is not bool(NAMES & source.keys())


@given(st.lists(wishes, max_size=4).map(",".join))
def test_any_visible_devices(value: str) -> None:
    try:
        wish = visible_devices({}, {VISIBLE: value})
    except RefusalError:
        return
    assert wish in ("", "all") or wish.startswith("device=")
