"""What is let in beside what is there: sums, placement, refusals, and grants that come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runai_runtime import ledger as ledgers
from runai_runtime.errors import RefusalError
from runai_runtime.grant import Share, describe, start_time, write_grant
from runai_runtime.host import Host, check
from runai_runtime.inventory import Gpu
from runai_runtime.ledger import Admission, Ledger, Lock, read_ledger
from runai_runtime.placement import Choice, NoRoomError, place
from runai_runtime.request import GUARANTEE, LIMIT, MEMORY, Request, read_request

MIB = 1 << 20
GIB = 1 << 30
NEEDED = {"runtime": "/r", "hook": "/h", "libvgpu": "/l"}


def make_gpus(*sizes: int, reserved: int = 0) -> list[Gpu]:
    """GPUs of SIZES MiB, of which the driver keeps RESERVED."""
    common = {"name": "A", "context": 0, "reserved": reserved * MIB}
    return [
        Gpu(common | {"index": i, "minor": i, "uuid": f"GPU-{i}", "total": size * MIB}) for i, size in enumerate(sizes)
    ]


def make_host(state: Path | str = "/s", **values: Any) -> Host:
    assert check(NEEDED | values) == ""
    return Host("/c.json", NEEDED | {"state": str(state)} | values)


def asked(memory: str = "", **more: str) -> Request:
    """MEMORY, or REQUEST and LIMIT."""
    names = {"guarantee": GUARANTEE, "limit": LIMIT}
    request = read_request({}, {MEMORY: memory} if memory else {names[name]: text for name, text in more.items()})
    assert request is not None
    return request


def admit(
    ledger: Ledger, name: str, request: Request, gpus: list[Gpu], count: int = 1, how: str = "pack"
) -> list[int | str]:
    """The GPUs that NAME gets."""
    shares = place(request, Choice(gpus, count), ledger, how)
    ledger.add(name, [describe(share) for share in shares])
    return [share.gpu.index for share in shares]


def refused(ledger: Ledger, request: Request, gpus: list[Gpu], count: int = 1) -> str:
    with pytest.raises(NoRoomError) as refusal:
        place(request, Choice(gpus, count), ledger, "pack")
    return str(refusal.value)


def test_pack_keeps_gpus_whole_and_spread_does_not() -> None:
    for how, expected in (("pack", [0, 0, 1, 0, 1]), ("spread", [0, 1, 2, 0, 1])):
        ledger, gpus = Ledger(make_host()), make_gpus(8192, 8192, 8192)
        sizes = ("3g", "4g", "3g", "1g", "4g")
        if how == "spread":
            sizes = ("3g",) * 5
        assert [admit(ledger, str(i), asked(size), gpus, how=how)[0] for i, size in enumerate(sizes)] == expected


def test_gpus_of_different_sizes() -> None:
    gpus = make_gpus(8192, 4096)
    assert admit(Ledger(make_host()), "a", asked("3g"), gpus) == [1], "the large one stays whole"
    assert admit(Ledger(make_host()), "a", asked("5g"), gpus) == [0], "the small one has not so much"
    assert admit(Ledger(make_host()), "a", asked("3g"), gpus, how="spread") == [0]
    ledger = Ledger(make_host())
    assert admit(ledger, "a", asked("1g"), gpus[:1]) == [0]
    assert admit(ledger, "b", asked("3g"), gpus) == [0], "in use already"


def test_a_count_is_of_distinct_gpus() -> None:
    ledger, gpus = Ledger(make_host()), make_gpus(8192, 8192, 8192)
    assert admit(ledger, "a", asked("5g"), gpus[1:2]) == [1]
    assert admit(ledger, "b", asked("4g"), gpus, 2) == [0, 2]
    assert admit(ledger, "c", asked("3g"), gpus, 3) == [0, 1, 2]
    assert "asks for 2048 MiB on each of 2 GPUs" in refused(ledger, asked("2g"), gpus, 2)


def test_named_gpus_are_not_moved() -> None:
    ledger, gpus = Ledger(make_host()), make_gpus(8192, 8192)
    named = [gpus[1], gpus[0]]
    assert admit(ledger, "a", asked("5g"), named, 2) == [1, 0]
    assert "GPU 1 has 3072 MiB free" in refused(ledger, asked("4g"), gpus[1:])


def test_parts_of_a_gpu_fit_although_the_driver_keeps_some() -> None:
    ledger, gpus = Ledger(make_host()), make_gpus(10989, reserved=64)
    assert admit(ledger, "a", asked("0.5"), gpus) == admit(ledger, "b", asked("0.5"), gpus) == [0]
    assert ledger.free(gpus[0]) == 1 * MIB
    for whole in ("1", "10989m"):
        ledger = Ledger(make_host())
        assert admit(ledger, "a", asked(whole), gpus) == [0]
        assert ledger.free(gpus[0]) == 0


def test_what_is_reserved() -> None:
    gpus = make_gpus(8192, reserved=192)
    for reserve, free in (("0", 8000), ("1g", 6976), ("25%", 5952), ("1", 0)):
        assert Ledger(make_host(reserve=reserve)).free(gpus[0]) == free * MIB
    said = refused(Ledger(make_host(reserve="1g")), asked("1"), gpus)
    assert said == "GPU 0 has 6976 MiB free of 6976 MiB; this container asks for 8000 MiB; ask for less"


def test_limits_add_up_beyond_only_with_overcommit() -> None:
    gpus, request = make_gpus(8192), asked(guarantee="2g", limit="6g")
    ledger = Ledger(make_host())
    admit(ledger, "a", request, gpus)
    assert "asks for 6144 MiB" in refused(ledger, request, gpus)
    ledger = Ledger(make_host(overcommit=True))
    for name in "abcd":
        admit(ledger, name, request, gpus)
    assert "has 0 MiB free of 8192 MiB" in refused(ledger, request, gpus)


def test_the_refusal() -> None:
    ledger, gpus = Ledger(make_host()), make_gpus(11264)
    admit(ledger, "3f2a" + "0" * 60, asked("6g"), gpus)
    admit(ledger, "web", asked("3g"), gpus)
    assert refused(ledger, asked("3g"), gpus) == (
        "GPU 0 has 2048 MiB free of 11264 MiB (3f2a00000000: 6144 MiB, web: 3072 MiB); this container asks for 3072 "
        "MiB; ask for less, or stop one of these"
    )
    gpus += make_gpus(11264, 4096)[1:]
    admit(ledger, "b", asked("3g"), gpus[1:])
    assert refused(ledger, asked("0.9"), gpus[1:]) == (
        "GPU 1 has 1024 MiB free of 4096 MiB (b: 3072 MiB); this container asks for 3686 MiB; ask for less, or stop "
        "one of these"
    )
    assert 'this container asks for "0.9" of a GPU' in refused(ledger, asked("0.9"), gpus)


@pytest.mark.parametrize(("gpus", "containers"), [(1, 200), (2, 60), (8, 8), (8, 200), (16, 16), (16, 250)])
def test_a_refusal_stays_short(gpus: int, containers: int) -> None:
    ledger, host = Ledger(make_host()), make_gpus(*[81559] * gpus)
    for number in range(containers):
        ledger.add(f"{number:064x}", [describe(Share(host[number % gpus], 300 * MIB, 300 * MIB))])
    said = refused(ledger, asked("1"), host)
    assert len(said) <= (400 if gpus < 8 else 500)
    assert all(f"GPU {i} has" in said or f" {i}: " in said for i in range(gpus))
    if gpus <= 8:
        assert all(f"{i:064x}"[:12] in said for i in range(gpus)), "of each GPU somebody is named"


def test_what_waiting_cannot_bring() -> None:
    with pytest.raises(NoRoomError) as refusal:
        place(asked("1"), Choice(make_gpus(8192), 1), Ledger(make_host(reserve="1g")), "pack")
    assert not refusal.value.may_come
    with pytest.raises(RefusalError, match="GPU 0 has 8192 MiB; ask for less"):
        place(asked("9g"), Choice(make_gpus(8192), 1), Ledger(make_host()), "pack")


sizes = st.integers(1, 40).map(lambda blocks: f"{blocks * 100}m") | st.sampled_from(["0.25", "0.5", "1", "33%"])
amounts = sizes.map(asked) | st.builds(lambda low, high: asked(guarantee=low, limit=high), sizes, sizes)
steps = st.lists(st.tuples(amounts, st.integers(0, 3), st.booleans(), st.integers(0, 50)), max_size=40)


@settings(deadline=None)
@given(steps, st.booleans(), st.sampled_from(["pack", "spread"]), st.sampled_from(["0", "512m", "0.1"]))
def test_any_order_of_grants_and_ends(
    sequence: list[tuple[Request, int, bool, int]], overcommit: bool, how: str, reserve: str
) -> None:
    """Never more than a GPU has, and no refusal of what fits: the sums are made here once more, from the grants."""
    ledger = Ledger(make_host(overcommit=overcommit, reserve=reserve))
    gpus = make_gpus(4096, 4096, 2048, reserved=64)
    grants: dict[str, list[Share]] = {}

    def free(gpu: Gpu) -> int:
        kept = {"0": 0, "512m": 512 * MIB, "0.1": gpu.total // 10}[reserve]
        there = [share for shares in grants.values() for share in shares if share.gpu is gpu]
        return gpu.total - gpu.reserved - kept - sum(s.guarantee if overcommit else s.room for s in there)

    for number, (request, count, ends, which) in enumerate(sequence):
        if ends and grants:
            gone = sorted(grants)[which % len(grants)]
            for share in grants.pop(gone):
                del ledger.holders[share.gpu.uuid][gone]
        choice = Choice(gpus, count or 1)
        try:
            shares = place(request, choice, ledger, how)
        except NoRoomError:
            fits = [ledger.takes(s) <= free(s.gpu) for s in possible(request, gpus)]
            assert sum(fits) < choice.count
            continue
        except RefusalError:
            assert len(possible(request, gpus)) < choice.count
            continue
        assert len({share.gpu.uuid for share in shares}) == choice.count
        grants[str(number)] = shares
        ledger.add(str(number), [describe(share) for share in shares])
        for gpu in gpus:
            assert free(gpu) >= 0
            assert sum(s.guarantee for all_ in grants.values() for s in all_ if s.gpu is gpu) <= gpu.total - 64 * MIB


def possible(request: Request, gpus: list[Gpu]) -> list[Share]:
    found = []
    for gpu in gpus:
        try:
            found += place(request, Choice([gpu], 1), Ledger(make_host()), "pack")
        except RefusalError:  # noqa: PERF203 - what this GPU hasn't at all
            continue
    return found


# The files


@pytest.fixture
def host(tmp_path: Path) -> Host:
    hook = Path("/bin/true")
    return make_host(tmp_path / "s", hook=str(hook))


def grant(host: Host, name: str, size: str = "3g", *, gpus: list[Gpu] | None = None) -> None:
    with Admission(host, name, asked(size), Choice(gpus or make_gpus(8192), 1)) as shares:
        write_grant(host, name, "/none", shares, "", {})


def orphan(host: Host, name: str) -> None:
    """As if the process that made it had ended, and no runtime knew it."""
    path = Path(host.state, name, "grant.json")
    content = json.loads(path.read_text()) | {"creator": {"pid": os.getpid(), "start": 1}}
    path.unlink()
    path.write_text(json.dumps(content))


def test_a_grant_whose_container_is_gone_comes_back(host: Host) -> None:
    grant(host, "one")
    grant(host, "two")
    with pytest.raises(NoRoomError, match=r"2048 MiB free of 8192 MiB \(one: 3072 MiB, two: 3072 MiB\)"):
        grant(host, "three")
    orphan(host, "one")
    grant(host, "three")
    assert sorted(os.listdir(host.state)) == ["lock", "three", "two"]


def test_what_the_grant_says(host: Host) -> None:
    host.overcommit = True
    grant(host, "one", "50%", gpus=make_gpus(8192, reserved=192))
    said = json.loads(Path(host.state, "one", "grant.json").read_text())
    assert said["overcommit"] is True
    assert said["gpus"] == [
        {"index": 0, "uuid": "GPU-0", "guarantee": 4000 * MIB, "limit": 4096 * MIB, "room": 4000 * MIB}
    ]


def test_a_grant_of_an_older_version_counts(host: Host) -> None:
    grant(host, "one")
    path = Path(host.state, "one", "grant.json")
    content = json.loads(path.read_text())
    del content["gpus"][0]["room"], content["overcommit"]
    path.unlink()
    path.write_text(json.dumps(content))
    assert read_ledger(host).held(make_gpus(8192)[0]) == {"one": 3 * GIB}


def test_a_living_grant_that_cannot_be_read_lets_nobody_in(host: Host) -> None:
    grant(host, "one")
    path = Path(host.state, "one", "grant.json")
    content = json.loads(path.read_text()) | {"gpus": [{"uuid": "GPU-0"}]}
    path.unlink()
    path.write_text(json.dumps(content))
    with pytest.raises(RefusalError, match=r"one/grant.json is damaged, or of a version"):
        grant(host, "two")


ONE = """
import sys
from runai_runtime.grant import write_grant
from runai_runtime.host import Host
from runai_runtime.inventory import Gpu
from runai_runtime.ledger import Admission
from runai_runtime.placement import Choice, NoRoomError
from runai_runtime.request import read_request
facts = {"index": 0, "minor": 0, "uuid": "GPU-0", "name": "A", "context": 0, "reserved": 0, "total": 8 << 30}
host = Host("/c.json", {"runtime": "/r", "hook": "/bin/true", "libvgpu": "/l", "state": sys.argv[1]})
request = read_request({}, {"RUNAI_GPU_MEMORY": "1g"})
try:
    with Admission(host, sys.argv[2], request, Choice([Gpu(facts)], 1)) as shares:
        write_grant(host, sys.argv[2], "/none", shares, "", {})
    print("in", flush=True)
    input()
except NoRoomError:
    print("no", flush=True)
"""


def test_one_at_a_time(host: Host) -> None:
    """Processes that are let in at the same moment: exactly as many as fit."""
    python = [sys.executable, "-c", ONE, host.state]
    running = [
        subprocess.Popen([*python, f"c{i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(12)
    ]
    said = [process.stdout.readline() for process in running if process.stdout]
    for process in running:
        process.communicate("\n")
    assert sorted(said) == ["in\n"] * 8 + ["no\n"] * 4


def test_waiting_for_room(host: Host) -> None:
    host.wait = 20
    grant(host, "one", "6g")
    end = threading.Timer(0.3, orphan_and_touch(host, "one"))
    end.start()
    grant(host, "two", "6g")
    end.join()
    assert sorted(os.listdir(host.state)) == ["lock", "two"]


def orphan_and_touch(host: Host, name: str) -> Callable[[], None]:
    def act() -> None:
        orphan(host, name)
        Path(host.state, ".0").mkdir()  # as when a hook removes a grant

    return act


def test_a_wait_that_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.wait = 0.2
    looks: list[str] = []

    def look(host: Host, apart_from: str) -> Ledger:
        looks.append(apart_from)
        return read_ledger(host, apart_from)

    monkeypatch.setattr(ledgers, "read_ledger", look)
    grant(host, "one", "6g")
    with pytest.raises(NoRoomError, match="2048 MiB free"):
        grant(host, "two", "6g")
    assert len(looks) <= 4, "no busy loop"
    with Lock(host):
        pass


def test_a_lock_that_is_held(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "LOCK_SECONDS", 0.1)
    with Lock(host), pytest.raises(RefusalError, match=rf"\(pid {os.getpid()}\) has had the lock"):
        grant(host, "one")
    grant(host, "one")


def test_a_queue_that_moves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine two hundred creates may wait for longer than anybody may hold the lock."""
    now, turns, others = 0.0, iter(range(5)), Lock(host)

    def sleep(_: float) -> None:
        nonlocal now
        now += 20
        turn = next(turns, None)
        if turn is None:
            others.close()
        else:
            os.pwrite(others.file, f"{turn} 0\n".encode(), 0)

    clock = SimpleNamespace(monotonic=lambda: now, monotonic_ns=lambda: 0, sleep=sleep)
    monkeypatch.setattr(ledgers, "time", clock)
    with others:
        grant(host, "one")
    assert now > 3 * ledgers.LOCK_SECONDS


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_lock_that_is_none(host: Host, tmp_path: Path, kind: str) -> None:
    Path(host.state).mkdir()
    lock = Path(host.state, "lock")
    lock.symlink_to(tmp_path / "elsewhere") if kind == "link" else lock.mkdir()
    with pytest.raises(RefusalError, match="can't be opened"):
        grant(host, "one")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_was_removed_meanwhile(host: Host) -> None:
    first, second = Lock(host), Lock(host)
    with first:
        os.unlink(first.path)
        with second:
            assert os.path.samestat(os.fstat(second.file), os.stat(second.path))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("placement", ["", "first", None, 1]),
        ("overcommit", [1, "true", None]),
        ("wait", [-1, True, "5", 3601, None, float("nan")]),
        ("reserve", [0, 1, "", "lots", "2.5", None, []]),
    ],
)
def test_values_that_are_none(key: str, values: list[object]) -> None:
    for value in values:
        assert f'its "{key}" is' in check(NEEDED | {key: value})


def test_start_time_tells_a_pid_that_was_used_again(host: Host) -> None:
    grant(host, "one")
    assert start_time(os.getpid()) > 1
    orphan(host, "one")
    assert read_ledger(host).holders == {}
