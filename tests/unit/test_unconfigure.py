"""What docker says of the containers that are in the way of unconfigure."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.errors import RefusalError
from runai_runtime.unconfigure import of_docker


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
