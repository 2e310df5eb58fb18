"""What docker says of the containers that are in the way of unconfigure."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.errors import RefusalError
from runai_runtime.registration import Registration
from runai_runtime.unconfigure import leave_docker, of_docker


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A client of docker's, to be written, for a socket where somebody listens."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(f"{tmp_path}/s")
        listening.listen()
        yield tmp_path / "docker"


def client(path: Path, ps: str, inspect: str) -> None:
    path.write_text(f"#!/bin/sh\nif [ $1 = ps ]; then {ps}; else {inspect}; fi\n")
    path.chmod(0o755)


def test_a_container_that_ends_meanwhile_hides_no_other(engine: Path) -> None:
    ps = f"if [ -e {engine}.1 ]; then echo one; else touch {engine}.1; printf 'one\\ntwo\\n'; fi"
    client(engine, ps, "echo one runai; echo 'No such object: two' >&2; exit 1")
    assert of_docker("runai") == ["one"]
    assert of_docker("other") == []


@pytest.mark.parametrize(("ps", "inspect"), [("echo why >&2; exit 1", ""), ("echo one", "echo why >&2; exit 1")])
def test_an_engine_that_does_not_answer(engine: Path, ps: str, inspect: str) -> None:
    client(engine, ps, inspect or "true")
    with pytest.raises(RefusalError, match="docker doesn't say what runs on it: why; "):
        of_docker("runai")
    engine.with_name("s").unlink()  # no engine at all
    client(engine, "exit 1", "true")
    assert of_docker("runai") == []


@pytest.mark.parametrize(("default", "verb"), [("runai", ""), ("runc", "reload"), ("runai", "restart")])
def test_without_systemctl_nothing_is_changed(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str, verb: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine.write_text(f"""#!/bin/sh\necho '"{default}"'; echo '{{"runc": {{}}, "runai": {{}}}}'\n""")
    engine.chmod(0o755)
    registration = Registration(tmp_path / "registration.json", tmp_path / "daemon.json")
    registration.daemon.write_text('{"debug": true}')
    registration.register("runai", tmp_path / "program", as_default=True)
    before = registration.daemon.read_text(), registration.path.read_text()
    with pytest.raises(RefusalError, match=r"there is no systemctl on PATH.*--force and restart docker after it$"):
        leave_docker(registration, "runai", verb, force=False)
    assert (registration.daemon.read_text(), registration.path.read_text()) == before
    (said,) = leave_docker(registration, "runai", verb, force=True)
    assert said.startswith("restart docker (systemctl restart docker): ")
    with registration.spelt_out():
        during = {"debug": True, "runtimes": {}, "default-runtime": "runc"}
        assert json.loads(registration.daemon.read_text()) == during
    registration.unregister()
    assert registration.daemon.read_text() == '{"debug": true}'


def test_an_engine_that_only_lists_it_is_left_alone(engine: Path, tmp_path: Path) -> None:
    engine.write_text("""#!/bin/sh\necho '"runc"'; echo '{"runc": {}, "runai": {}}'\n""")
    engine.chmod(0o755)
    (said,) = leave_docker(Registration(tmp_path / "r", tmp_path / "d"), "runai", "", force=False)
    assert "until docker is restarted" in said
    assert leave_docker(Registration(tmp_path / "r", tmp_path / "d"), "other", "", force=False) == []
