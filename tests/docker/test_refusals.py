"""What can't be done as asked is refused with one sentence; nothing was started, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import PLACES
from tests.docker.engine import Engine
from tests.docker.host import NATIVE, Runai, configuration, grants_in, host_mounts, mounts_in
from tests.simgpu.host import SimHost


@pytest.fixture(scope="module")
def runai(folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    """A runtime of the shared engine with files of its own, which can be taken away from under it."""
    place = folder / PLACES["runai-refused"]
    copy = shutil.copytree(NATIVE, place / "native")
    config = configuration(place, simhost) | {"libvgpu": str(copy), "hook": str(copy / "runai-hook")}
    return Runai.configured(engine, simhost, config, place, "runai-refused")


@pytest.fixture(autouse=True)
def leaves_nothing(runai: Runai) -> Iterator[None]:
    before = host_mounts()
    yield
    assert host_mounts() == before
    assert mounts_in(runai.engine) == []
    assert grants_in(runai.state) == []
    assert runai.engine.docker("ps", "-q").stdout == ""


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence that docker shows; the container never ran."""
    assert done.returncode == 125, done.stderr
    assert "STARTED" not in done.stdout
    assert "Traceback" not in done.stderr
    _, found, sentence = done.stderr.partition("runai: ")
    assert found, done.stderr
    assert "runai: " not in sentence
    return sentence.strip()


def run(
    runai: Runai, memory: str | None = "3g", *options: str | Path, command: str = "echo STARTED"
) -> subprocess.CompletedProcess[str]:
    return runai.run("sh", "-c", command, memory=memory, options=options, check=False)


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        ("abc", "no amount of memory"),
        ("", "no amount of memory"),
        ("0", "more than nothing"),
        ("-1g", "no amount of memory"),
        ("1.5", "more than a whole GPU"),
        ("1k", "blocks of 2 MiB"),
        ("200%", "more than a whole GPU"),
        ("11g", "GPU 0 has 10989 MiB"),
    ],
)
def test_bad_values(runai: Runai, memory: str, why: str) -> None:
    sentence = refusal(run(runai, memory))
    assert why in sentence
    assert "RUNAI_GPU_MEMORY" in sentence


@pytest.mark.parametrize("gpus", ["2", "0", "1,0", "GPU-none", "device=7", ","])
def test_gpus_that_are_not_there(runai: Runai, gpus: str) -> None:
    assert "RUNAI_GPUS" in refusal(run(runai, "3g", f"--env=RUNAI_GPUS={gpus}"))


@pytest.mark.parametrize("gpus", ["1", "all", "device=0", "0,"])
def test_gpus_that_are_there(runai: Runai, gpus: str) -> None:
    assert run(runai, "3g", f"--env=RUNAI_GPUS={gpus}").stdout == "STARTED\n"


@contextlib.contextmanager
def moved(path: Path) -> Iterator[None]:
    away = path.with_name(path.name + ".away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


def test_no_driver(runai: Runai) -> None:
    with moved(runai.simhost.lib), moved(runai.state / "host.json"):
        assert "no NVIDIA driver" in refusal(run(runai))


def test_no_device_nodes(runai: Runai) -> None:
    config = runai.program.with_name("config.json")
    saved = config.read_text()
    values = json.loads(saved)
    values["driver"]["devices"] = "/nowhere"
    cache = runai.state / "host.json"
    cached = cache.read_text()
    config.write_text(json.dumps(values))
    cache.write_text(json.dumps(json.loads(cached) | {"for": values["driver"]}))
    try:
        assert "/nowhere/nvidiactl" in refusal(run(runai))
    finally:
        config.write_text(saved)
        cache.write_text(cached)


@pytest.mark.parametrize("name", ["libcuda.so.1", "libnvidia-ml.so.1"])
def test_a_library_of_ours_is_missing(runai: Runai, name: str) -> None:
    with moved(Path(runai.config["libvgpu"]) / name):
        assert f"{name} is missing" in refusal(run(runai))


def test_the_hook_is_missing(runai: Runai) -> None:
    with moved(Path(runai.config["hook"])):
        assert "runai-hook is missing" in refusal(run(runai))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runtime": "runc"}'])
def test_a_damaged_configuration(runai: Runai, text: str) -> None:
    config = runai.program.with_name("config.json")
    saved = config.read_text()
    config.write_text(text)
    try:
        assert str(config) in refusal(run(runai))
    finally:
        config.write_text(saved)


@pytest.mark.parametrize("propagation", ["shared", "rshared"])
def test_a_target_under_a_shared_mount(runai: Runai, tmp_path: Path, propagation: str) -> None:
    subprocess.run(["/bin/mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        subprocess.run(["/bin/mount", "--make-shared", tmp_path], check=True)
        volume = f"--volume={tmp_path}:/usr/lib/x86_64-linux-gnu:{propagation}"
        assert "shared" in refusal(run(runai, "3g", volume))
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["/bin/umount", tmp_path], check=True)


def test_a_volume_whose_symlinks_point_out(runai: Runai, tmp_path: Path) -> None:
    """A symlink of the container ends in the container: what it names on the host is never touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    volume = tmp_path / "volume"
    volume.mkdir()
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libcuda.so"):
        (volume / name).symlink_to(outside / name)
    (outside / "libcuda.so").write_text("the host's")
    shown = run(runai, "3g", f"--volume={volume}:/usr/local/nvidia/lib64", f"--volume={volume}:/usr/bin/x")
    assert shown.stdout == "STARTED\n"
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("libcuda.so", "the host's")]


def test_an_image_whose_symlinks_point_out(runai: Runai, image: Callable[..., str], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    script = f"rm -rf /.runai /usr/bin/nvidia-smi; ln -s {victim} /.runai; ln -s {victim}/smi /usr/bin/nvidia-smi"
    assert "/.runai" in refusal(runai.run("nvidia-smi", image=image(script), check=False))
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_something_else_at_a_target(runai: Runai, image: Callable[..., str], kind: str) -> None:
    make = {"fifo": "mkfifo /usr/bin/nvidia-smi", "folder": "mkdir /usr/bin/nvidia-smi"}[kind]
    assert "/usr/bin/nvidia-smi" in refusal(runai.run("true", image=image(make), check=False))


class Bundle:
    """A bundle for the registered program alone, without an engine."""

    def __init__(self, runai: Runai, folder: Path) -> None:
        self.runai, self.folder = runai, folder
        self.log = folder / "log.json"
        (folder / "rootfs").mkdir()
        subprocess.run(["/usr/sbin/runc", "spec", "-b", folder], check=True)
        self.spec = json.loads((folder / "config.json").read_text())

    def write(self, text: str | None = None) -> None:
        (self.folder / "config.json").write_text(json.dumps(self.spec) if text is None else text)

    def call(self, command: str, *options: str, container: str = "bundle") -> tuple[int, str]:
        arguments: list[str | Path] = [
            "--root",
            self.folder / "root",
            "--log",
            self.log,
            "--log-format",
            "json",
            command,
            *options,
        ]
        self.log.unlink(missing_ok=True)
        done = subprocess.run([self.runai.program, *arguments, container], capture_output=True, text=True, check=False)
        assert done.stdout == ""
        assert done.stderr == "" or command == "run"
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return done.returncode, json.loads(lines[-1])["msg"] if lines else ""


@pytest.fixture
def bundle(runai: Runai, tmp_path: Path) -> Bundle:
    return Bundle(runai, tmp_path)


@pytest.mark.parametrize(
    "text", ['{"a": "RUNAI_GPU_MEMORY"', '"RUNAI_GPU_MEMORY"', '{"process": {"env": ["RUNAI_GPU_MEMORY=3g"]}}']
)
def test_a_damaged_config_json(bundle: Bundle, text: str) -> None:
    bundle.write(text)
    status, message = bundle.call("create", "--bundle", str(bundle.folder))
    assert (status, message.startswith("runai: ")) == (1, True)
    assert (bundle.folder / "config.json").read_text() == text


def test_an_annotation_is_a_request(bundle: Bundle) -> None:
    bundle.spec["annotations"] = {"RUNAI_GPU_MEMORY": "abc"}
    bundle.write()
    status, message = bundle.call("run", "-b", str(bundle.folder))
    assert status == 1
    assert 'RUNAI_GPU_MEMORY is "abc"' in message


@pytest.mark.parametrize("container", ["../x", "a/b", "", ".", "..", "a\nb", "x" * 300])
def test_ids_that_are_no_names(bundle: Bundle, container: str) -> None:
    bundle.spec["process"]["env"] = ["RUNAI_GPU_MEMORY=3g"]
    bundle.write()
    status, message = bundle.call("create", "-b", str(bundle.folder), container=container)
    assert status == 1
    assert "no container id" in message


def test_a_shared_root(bundle: Bundle) -> None:
    bundle.spec["process"]["env"] = ["RUNAI_GPU_MEMORY=3g"]
    bundle.spec["linux"]["rootfsPropagation"] = "rshared"
    bundle.write()
    assert "shared with the host" in bundle.call("create", "-b", str(bundle.folder))[1]


def test_restore(bundle: Bundle) -> None:
    bundle.spec["process"]["env"] = ["RUNAI_GPU_MEMORY=3g"]
    bundle.write()
    assert "can't be restored" in bundle.call("restore", "-b", str(bundle.folder))[1]


def test_checkpoint(runai: Runai) -> None:
    container = runai.engine.docker("run", "-d", *runai.arguments(memory="3g"), "runai-test:busybox", "sleep", "60")
    name = container.stdout.strip()
    arguments: list[str | Path] = ["--root", runai.engine.runtime_root(runai.runtime), "checkpoint", name]
    done = subprocess.run([runai.program, *arguments], capture_output=True, text=True, check=False)
    runai.engine.docker("kill", name)
    runai.engine.docker("wait", name)
    assert done.returncode == 1
    assert "can't be checkpointed" in done.stderr


def test_an_option_that_nobody_knows(bundle: Bundle) -> None:
    bundle.write()
    done = subprocess.run([bundle.runai.program, "--new", "create"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith('runai: the runtime was started with the option "--new"')


def test_the_environment_has_no_say(runai: Runai, tmp_path: Path) -> None:
    """Not even on what the runtime's Python does."""
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}
    done = subprocess.run(
        [runai.program, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.startswith("runc version")
