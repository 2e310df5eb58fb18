"""prestart: the state that the runtime writes to it, and what it notes down of the container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.unit.hook.container import Container, check_refused


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        '{"pid":%d}',
        ' {\r\n\t"ociVersion" : "1.0.2", "pid" : %d , "bundle":"/b"} \n',
        '{"annotations":{"pid":"1","a":"{\\"pid\\":1}"},"pid":%d}',
        '{"annotations":{"a":{"pid":2}},"x":[{"pid":3}],"pid":%d,"y":{"pid":4}}',
        '{"a":"\\\\","b":"\\"pid\\":5,","pid":%d}',
        '{"\\u0070\\u0069d":%d}',
        '{"pid\\u0000":6,"pi":7,"pidd":8,"PID":9,"pid":%d}',
        '{"a":-1.5e+10,"b":[true,false,null,0,"\\u00e9\\ud83d\\ude00"],"":{},"c":[],"pid":%d}',
        '{"a":' + nested(60) + ',"pid":%d}',
        '{"a":"' + "x" * (3 << 20) + '","pid":%d}',
    ],
)
def test_state(debian: Container, text: str) -> None:
    done = debian.stage("prestart", text.replace("%d", str(os.getpid())))
    assert done.returncode == 0, done.stderr
    assert (debian.state / "pid").read_text() == f"{os.getpid()}\n"
    assert (debian.state / "cgroup").read_text() == Path("/proc/self/cgroup").read_text()
    assert sorted(path.name for path in debian.state.iterdir()) == ["cgroup", "grant.json", "limits", "pid", "plan"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "{}",
        '{"pid"',
        '{"pid":',
        '{"pid":}',
        '{"pid":%d',
        '{"pid":%d,}',
        '{"pid":%d}x',
        '{"pid":%d}{"pid":%d}',
        '{"pid":0}',
        '{"pid":-1}',
        '{"pid":"1"}',
        '{"pid":1.0}',
        '{"pid":1e3}',
        '{"pid":01}',
        '{"pid":99999999999999999999}',
        '{"pid":null}',
        '{"pid":%d,"pid":1}',
        "{pid:1}",
        '{"a":tru,"pid":%d}',
        '{"a":"\\x","pid":%d}',
        '{"a":"\\u12g4","pid":%d}',
        '{"a":"\n","pid":%d}',
        '{"a":.5,"pid":%d}',
        '{"a":1.,"pid":%d}',
        '{"a":[1,],"pid":%d}',
        '{"a":{"b"},"pid":%d}',
        '{"a":' + nested(100000) + ',"pid":%d}',
        '{"a":"\\',
        '{"a":"\\u00',
        '{"a" "b","pid":%d}',
        '{"pid":%d}\0',
        '{"a":"' + "x" * (4 << 20) + '","pid":%d}',
        '{"annotations":{"pid":%d}}',
    ],
)
def test_state_that_is_refused(debian: Container, text: str) -> None:
    check_refused(debian.stage("prestart", text.replace("%d", str(os.getpid()))), "the container's state")
    assert not (debian.state / "pid").exists()


def test_state_of_random_bytes(debian: Container) -> None:
    valid = b'{"a":[1,{"b":"\\u0041"}],"pid":1}'
    for position in range(len(valid)):
        for byte in (b"\0", b'"', b"\\", b"{", b"\xff"):
            done = debian.stage("prestart", valid[:position] + byte + valid[position + 1 :])
            assert done.returncode in (0, 1)
            assert "Sanitizer" not in done.stderr


def test_process_is_gone(debian: Container) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    check_refused(debian.stage("prestart", json.dumps({"pid": process.pid})), f"process {process.pid}")


@pytest.mark.parametrize("name", ["ptx", "smi", "node", "ours-libcuda.so.1", "real-libnvidia-ml.so.1"])
def test_source_is_missing(debian: Container, name: str) -> None:
    (debian.host / name).unlink()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), name, "it does not exist")
    (debian.host / name).mkdir()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), name, "no regular file")


def test_share_is_missing(debian: Container) -> None:
    (debian.state / "limits").unlink()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), "limits")


def test_interrupted_prestart(debian: Container) -> None:
    (debian.state / "pid.new").write_text("left")
    assert debian.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    assert (debian.state / "pid").read_text() == f"{os.getpid()}\n"


def test_a_hook_that_is_kept_waiting_ends(hasty_hook: Path, tmp_path: Path) -> None:
    """Here by the state that never comes. A runtime may have blocked all signals."""
    container = Container(hasty_hook, tmp_path)
    command = [str(hasty_hook), "prestart", str(container.state)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        hook = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert hook.stdin and hook.stderr
    with hook:
        assert hook.wait(60) == 1
        assert hook.stderr.read().startswith("runai: the hook has taken more than 1 seconds; ")
