"""A share that changes while its container runs, over a control socket that the test answers."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime import live
from runai_runtime.errors import RefusalError
from runai_runtime.grant import start_time
from runai_runtime.host import Host
from runai_runtime.inventory import Inventory
from runai_runtime.ledger import Lock, read_ledger

GIB = 1 << 30
GPUS = [
    {"index": i, "uuid": f"GPU-{i}", "minor": i, "name": "A", "total": (8 - 4 * i) * GIB, "reserved": 0, "context": 7}
    for i in range(2)
]


class Agent:
    """Answers each request by ANSWERS in turn, then with `ok 5`. None: it never does."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[str | None] = []
        self.heard: list[str] = []
        self.silent: list[socket.socket] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(folder / "control"))
        self.socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.heard.append(peer.recv(128).decode())
            answer = self.answers.pop(0) if self.answers else "ok 5\n"
            if answer is None:
                self.silent.append(peer)
                continue
            peer.sendall(answer.encode())
            peer.close()

    def end(self) -> None:
        for peer in self.silent:
            peer.close()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    values: dict[str, Any] = {"driver": "580.1", "gpus": GPUS, "libraries": [], "programs": [], "ours": {}}
    monkeypatch.setattr(live, "read_inventory", lambda _: Inventory(values))
    return Host("/c.json", {"runtime": "/r", "hook": "/h", "libvgpu": "/l", "state": str(tmp_path)})


@pytest.fixture
def folder(host: Host) -> Path:
    """The grant of a container `one` with both GPUs."""
    folder = Path(host.state, "one")
    folder.mkdir()
    grant = {
        "id": "one",
        "root": "/none",
        "creator": {"pid": os.getpid(), "start": start_time(os.getpid())},
        "gpus": [{"index": i, "uuid": f"GPU-{i}", "guarantee": GIB, "limit": 2 * GIB} for i in range(2)],
        "enforcement": {"by": "agent"},
    }
    (folder / "grant.json").write_text(json.dumps(grant))
    (folder / "limits").write_text(f"GPU-0 {2 * GIB} 7\nGPU-1 {2 * GIB} 7\n")
    return folder


@pytest.fixture
def agent(folder: Path) -> Iterator[Agent]:
    agent = Agent(folder)
    yield agent
    agent.end()


def files(folder: Path) -> tuple[str, list[tuple[int, int]]]:
    grant = json.loads((folder / "grant.json").read_text())
    return (folder / "limits").read_text(), [(gpu["guarantee"], gpu["limit"]) for gpu in grant["gpus"]]


def test_every_gpu_and_every_file(host: Host, folder: Path, agent: Agent) -> None:
    inode = (folder / "limits").stat().st_ino
    agent.answers = ["ok 17\n", "ok 3\n"]
    assert live.set_share(host, "one", "50%") == [17, 3]
    assert agent.heard == [f"share 0 {4 * GIB}\n", f"share 1 {2 * GIB}\n"]
    assert files(folder) == (
        f"GPU-0 {4 * GIB} 7\nGPU-1 {2 * GIB} 7\n",
        [(4 * GIB, 4 * GIB), (2 * GIB, 2 * GIB)],
    )
    assert (folder / "limits").stat().st_ino == inode, "what is mounted in the container is this file"
    assert sorted(path.name for path in Path(host.state).iterdir()) == ["lock", "one"]


def test_limits_never_get_shorter(host: Host, folder: Path, agent: Agent) -> None:
    assert agent.heard == []
    size = (folder / "limits").stat().st_size
    live.set_share(host, "one", "4m")
    assert (folder / "limits").read_text() == f"GPU-0 {4 << 20:010} 7\nGPU-1 {4 << 20:010} 7\n"
    assert (folder / "limits").stat().st_size == size


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["error this agent doesn't know that request\n"], "as one of another version"),
        (["ok 1\n", "nonsense"], "as one of another version"),
        (["ok 1\n", ""], "is gone"),
        (["ok 1\n", None], "didn't answer within"),
    ],
)
def test_all_or_nothing(
    host: Host, folder: Path, agent: Agent, answers: list[str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SECONDS", 0.3)
    before, agent.answers = files(folder), answers
    with pytest.raises(RefusalError, match=said):
        live.set_share(host, "one", "1g")
    assert agent.heard[-2:] == [f"share 0 {2 * GIB}\n", f"share 1 {2 * GIB}\n"]
    assert files(folder) == before


@pytest.mark.parametrize("fails", [1, 2])
def test_files_that_cannot_be_written(
    host: Host, folder: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Where room for the new share can't be written down the agent isn't even told of it."""
    replace, calls = live.replace_grant, [0]

    def fail(*given: Any) -> None:
        calls[0] += 1
        if calls[0] == fails:
            raise OSError(28, "No space left on device")
        replace(*given)

    before = files(folder)
    monkeypatch.setattr(live, "replace_grant", fail)
    with pytest.raises(RefusalError, match=r"is as it was, since .*: No space left"):
        live.set_share(host, "one", "1g")
    assert agent.heard[-2:] == ([] if fails == 1 else [f"share 0 {2 * GIB}\n", f"share 1 {2 * GIB}\n"])
    assert files(folder) == before


def neighbour(host: Host, size: int) -> None:
    """Another container that has SIZE of the second GPU."""
    folder = Path(host.state, "two")
    folder.mkdir()
    creator = {"pid": os.getpid(), "start": start_time(os.getpid())}
    gpus = [{"index": 1, "uuid": "GPU-1", "guarantee": size, "limit": size, "room": size}]
    (folder / "grant.json").write_text(json.dumps({"id": "two", "root": "/none", "creator": creator, "gpus": gpus}))


def test_what_others_hold_is_not_given_away(host: Host, folder: Path, agent: Agent) -> None:
    neighbour(host, GIB)
    before = files(folder)
    with pytest.raises(RefusalError, match=r"^GPU 1 has 3072 MiB free of 4096 MiB \(two: 1024 MiB\); the new "):
        live.set_share(host, "one", "4g")
    assert agent.heard == []
    assert files(folder) == before
    live.set_share(host, "one", "3g")
    assert files(folder)[1] == [(3 * GIB, 3 * GIB)] * 2


def test_until_the_agent_has_answered_both_shares_count(
    host: Host, folder: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[dict[str, int]] = []

    def look(*given: Any) -> int:
        with Lock(host):
            held.append(read_ledger(host).holders["GPU-1"])
        return tell(*given)

    tell = live.tell
    monkeypatch.setattr(live, "tell", look)
    live.set_share(host, "one", "1g")
    live.set_share(host, "one", "3g")
    assert [there["one"] for there in held] == [2 * GIB, 2 * GIB, 3 * GIB, 3 * GIB]


@pytest.mark.parametrize(
    ("container", "text", "said"),
    [
        ("../one", "1g", "is no container id"),
        ("two", "1g", 'no container "two"'),
        ("one", "lots", 'the new share is "lots", which is no amount'),
        ("one", "5g", "GPU 1 has 4096 MiB"),
        ("one", "1m", "blocks of 2 MiB"),
        ("one", "0", "more than nothing"),
    ],
)
def test_refused(host: Host, folder: Path, agent: Agent, container: str, text: str, said: str) -> None:
    before = files(folder)
    with pytest.raises(RefusalError, match=said):
        live.set_share(host, container, text)
    assert agent.heard == []
    assert files(folder) == before


def test_without_an_agent(host: Host, folder: Path) -> None:
    with pytest.raises(RefusalError, match="agent of one is gone"):
        live.set_share(host, "one", "1g")
    grant = json.loads((folder / "grant.json").read_text())
    (folder / "grant.json").write_text(json.dumps(grant | {"enforcement": {"by": "interposer", "why": "x"}}))
    with pytest.raises(RefusalError, match=r"needs an agent, and it has none \(x\); see to that"):
        live.set_share(host, "one", "1g")


def test_a_gpu_that_is_gone(host: Host, folder: Path, agent: Agent) -> None:
    grant = json.loads((folder / "grant.json").read_text())
    grant["gpus"][1]["uuid"] = "GPU-9"
    (folder / "grant.json").write_text(json.dumps(grant))
    with pytest.raises(RefusalError, match="GPU GPU-9 is no longer"):
        live.set_share(host, "one", "1g")
    assert agent.heard == []
