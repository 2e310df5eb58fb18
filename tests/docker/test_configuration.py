"""What the host's configuration lets containers have, and hostile bundles, files and texts, in a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker import images
from tests.docker.host import Container, Runai, grants_in, host_mounts, mounts_in

GIB = 1 << 30
MIB = 1 << 20
LIMITS = ("cat", "/.runai/limits")


@pytest.fixture(autouse=True)
def leaves_nothing(runai: Runai) -> Iterator[None]:
    before = host_mounts()
    yield
    runai.engine.remove_containers()
    assert grants_in(runai.state) == []
    assert mounts_in(runai.engine) == []
    assert host_mounts() == before


@contextlib.contextmanager
def configured(folder: Path, **more: Any) -> Iterator[None]:
    config = folder / "config.json"
    saved = config.read_text()
    config.write_text(json.dumps(json.loads(saved) | more))
    try:
        yield
    finally:
        config.unlink()
        config.write_text(saved)


@pytest.fixture
def node(runai: Runai) -> str:
    """What gives a container the GPU, as --device does a real one."""
    return f"--volume={runai.simhost.dev}/nvidia0:/dev/nvidia0"


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 125, (done.stdout, done.stderr)
    _, found, sentence = done.stderr.partition("runai: ")
    assert found, done.stderr
    assert "nobody expected" not in sentence
    return sentence


def limit(runai: Runai, *options: str, memory: str | None = None) -> int:
    return int(runai.run(*LIMITS, memory=memory, options=options).stdout.split()[1])


def test_a_gpu_without_a_request(runai: Runai, folder: Path, node: str) -> None:
    """Left alone, given the default, or refused; without a GPU it is left alone always."""
    seen = runai.run("sh", "-c", "cat /.runai/limits; ls /dev", memory=None, options=(node,), check=False)
    assert ("No such file" in seen.stderr, "nvidia0" in seen.stdout) == (True, True)
    for without in ("default", "refuse"):
        with configured(folder, without_request=without, default_share="2g"):
            assert runai.run("ls", "-d", "/.runai", memory=None, check=False).returncode == 1
            assert limit(runai, node, memory="1g") == GIB
            if without == "default":
                assert limit(runai, node) == 2 * GIB
            else:
                assert "asks for no share" in refusal(runai.run("true", memory=None, options=(node,), check=False))


def test_a_gpu_that_is_asked_for_without_memory(runai: Runai, folder: Path) -> None:
    with configured(folder, default_share="25%"):
        assert limit(runai, "--env=RUNAI_GPUS=1") // MIB == 10989 // 4


def test_an_image_that_asks_for_more_than_the_largest_share(
    runai: Runai, image: Callable[..., str], folder: Path
) -> None:
    greedy = image("true", "ENV RUNAI_GPU_MEMORY=1")
    assert int(runai.run(*LIMITS, memory=None, image=greedy).stdout.split()[1]) // MIB == 10989
    with configured(folder, largest_share="2g"):
        sentence = refusal(runai.run(*LIMITS, memory=None, image=greedy, check=False))
        assert 'RUNAI_GPU_MEMORY is "1", 10989 MiB of GPU 0; a container gets 2048 MiB of it at most' in sentence
        assert int(runai.run(*LIMITS, memory="2g", image=greedy).stdout.split()[1]) == 2 * GIB


@pytest.mark.parametrize("let_in", [[], ["/dev/dri"]])
def test_devices_let_in(runai_agent: Runai, folder: Path, tmp_path: Path, let_in: list[str]) -> None:
    """A folder stands for /dev/dri."""
    (tmp_path / "card0").touch()
    with configured(folder / "b", devices_let_in=let_in):
        container = Container(runai_agent, "sleep", "60", options=(f"--volume={tmp_path}:/dev/dri",))
        enforcement = json.loads((container.grant / "grant.json").read_text())["enforcement"]
        assert enforcement.get("let_in", []) == let_in
        assert ("card0" in container.execute("sh", "-c", "ls /dev/dri || true")) is bool(let_in)
        runai_agent.engine.remove_containers()


def test_the_hosts_log(runai: Runai, folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "runai.log"
    with configured(folder, log=str(log)):
        runai.run("true")
        sentence = refusal(runai.run("true", memory="99g", check=False))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["level"] for line in lines] == ["info", "error"]
    assert lines[1]["msg"].removeprefix("runai: ") in sentence
    assert all(len(line["id"]) == 64 for line in lines)


# Hostile texts and files


@pytest.mark.parametrize(
    "options",
    [
        ("--hostname=a\nb",),
        ("--label=a=b\nRUNAI_GPU_MEMORY=8g",),
        ("--env=A=b\nRUNAI_GPU_MEMORY=8g",),
        ("--env=A\nRUNAI_GPU_MEMORY=8g",),
        ("--workdir=/a\nb",),
    ],
)
def test_line_breaks(runai: Runai, options: tuple[str, ...]) -> None:
    """Such a container doesn't start, under runc neither, or has the share that it asked for."""
    done = runai.run(*LIMITS, options=options, check=False)
    assert done.returncode != 0 or int(done.stdout.split()[1]) == 3 * GIB
    assert "nobody expected" not in done.stderr


def test_a_mebibyte_of_environment(runai: Runai, tmp_path: Path) -> None:
    lines = [f"A{number}={'x' * 60_000}" for number in range(16)] + [f"RUNAI_JOB{number}=1" for number in range(5000)]
    (tmp_path / "env").write_text("\n".join(lines))
    assert limit(runai, f"--env-file={tmp_path / 'env'}", memory="3g") == 3 * GIB


def test_the_configuration_is_no_file(runai: Runai, folder: Path, node: str) -> None:
    config = folder / "config.json"
    with configured(folder):
        config.unlink()
        os.mkfifo(config)
        assert "no regular file" in refusal(runai.run("true", check=False))
        assert "no regular file" in refusal(runai.run("true", memory=None, options=(node,), check=False))
        runai.run("true", memory=None)


class Bundle:
    """A bundle with busybox in it, for the registered program itself."""

    def __init__(self, runai: Runai, folder: Path) -> None:
        self.runai, self.folder = runai, folder
        subprocess.run(["/usr/sbin/runc", "spec", "-b", folder], check=True)
        self.spec: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.spec["process"] |= {"terminal": False, "args": list(LIMITS)}
        self.spec["process"]["env"].append("RUNAI_GPU_MEMORY=3g")
        (folder / "rootfs").mkdir()
        name = runai.engine.docker("create", "--network=host", images.BUSYBOX).stdout.strip()
        runai.engine.docker("export", f"--output={folder}/image.tar", name)
        subprocess.run(["/bin/tar", "-xf", folder / "image.tar", "-C", folder / "rootfs"], check=True)

    def run(self, container: str = "bundle") -> subprocess.CompletedProcess[str]:
        options: list[str | Path] = [
            "--root",
            self.folder / "root",
            "--log",
            self.folder / "log",
            "--log-format",
            "json",
        ]
        command: list[str | Path] = [self.runai.program, *options, "run", "--bundle", self.folder, container]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
        )

    def write(self, more: dict[str, Any]) -> None:
        (self.folder / "config.json").write_text(json.dumps(self.spec | more))

    def said(self) -> str:
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""


@pytest.fixture
def bundle(runai: Runai, tmp_path: Path) -> Bundle:
    return Bundle(runai, tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"annotations": {"a\nb": "c\nd", "org.x": "RUNAI_GPU_MEMORY=8g\n"}, "x-unknown": {"a": [1, None, {"b": 2.5}]}},
        {"hooks": {"prestart": [], "x-unknown": []}, "hostname": "h"},
        {"vm": None, "solaris": {}, "domainname": ""},
    ],
)
def test_a_bundle_with_more_in_it(bundle: Bundle, more: dict[str, Any]) -> None:
    bundle.write(more)
    done = bundle.run()
    assert done.returncode == 0, (done.stderr, bundle.said())
    assert int(done.stdout.split()[1]) == 3 * GIB


@pytest.mark.parametrize("container", ["a\nb", "..", "a/b", "a\tb", "x" * 300, "ä"])
def test_an_id_that_is_no_name(bundle: Bundle, container: str) -> None:
    bundle.write({})
    done = bundle.run(container)
    assert done.returncode == 1
    assert "is no container id" in bundle.said()
    assert len(bundle.said().splitlines()) == 1


def test_a_config_of_50_mib(bundle: Bundle) -> None:
    bundle.write({"annotations": {str(number): "x" * MIB for number in range(50)}})
    done = bundle.run()
    assert (done.returncode == 0 and int(done.stdout.split()[1]) == 3 * GIB) or "runai: " in bundle.said()


def test_a_config_that_is_too_large(bundle: Bundle) -> None:
    with (bundle.folder / "config.json").open("wb") as file:
        file.truncate(65 * MIB)
    assert bundle.run().returncode == 1
    assert "can't be right" in bundle.said()


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_config_that_is_no_file(bundle: Bundle, kind: str) -> None:
    """The low-level runtime would read what nobody looked at."""
    path = bundle.folder / "config.json"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert bundle.run().returncode == 1
    assert "no regular file" in bundle.said()
