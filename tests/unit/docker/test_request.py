"""What runai-docker makes of a command line: the real client asks the engine for just what it asks for when a person
writes docker's command by hand.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.docker.main import translated
from tests.docker.newer import binaries
from tests.unit.docker.recorder import Recorder

OLD_API, NEW_API = "1.41", "1.45"

RUNAI = "--runtime=runai"
THIRD = f"{RUNAI} --annotation=RUNAI_GPU_MEMORY=0.3"
ONE = f"{THIRD} --annotation=RUNAI_GPUS=1"

# What a person writes for runai-docker, and by hand for docker. A blank separates words, ~ is one in a word.
SHAPES = [
    # The option, and where it stands.
    ("run --gpu-memory 0.3 u", f"run {THIRD} u"),
    ("run --gpu-memory=0.3 u", f"run {THIRD} u"),
    ("run --gpu-memory 0.3 --gpus 1 u", f"run {ONE} u"),
    ("run --gpus=1 --gpu-memory=0.3 u", f"run {ONE} u"),
    ("run --gpus 1 --gpu-memory 0.3 u nvidia-smi -L", f"run {ONE} u nvidia-smi -L"),
    ("run -dit --rm --gpus 1 --gpu-memory 0.3 u nvidia-smi", f"run -dit --rm {ONE} u nvidia-smi"),
    ("run --rm --gpu-memory 0.3 -i u sh", f"run --rm -i {THIRD} u sh"),
    ("create --gpu-memory 0.3 u", f"create {THIRD} u"),
    ("container run --gpu-memory 0.3 u", f"container run {THIRD} u"),
    ("container create --gpu-memory 0.3 --name x u", f"container create {THIRD} --name x u"),
    ("run --gpu-memory 5g --gpu-memory 0.3 u", f"run {THIRD} u"),
    # Amounts, and parts.
    ("run --gpu-memory 3g u", f"run {RUNAI} --annotation=RUNAI_GPU_MEMORY=3g u"),
    ("run --gpu-memory 30% u", f"run {RUNAI} --annotation=RUNAI_GPU_MEMORY=30% u"),
    ("run --gpu-memory 1 u", f"run {RUNAI} --annotation=RUNAI_GPU_MEMORY=1 u"),
    ("run --gpu-memory-limit 4g u", f"run {RUNAI} --annotation=RUNAI_GPU_MEMORY_LIMIT=4g u"),
    ("run --gpu-memory-request=4g u", f"run {RUNAI} --annotation=RUNAI_GPU_MEMORY_REQUEST=4g u"),
    (
        "run --gpu-memory-request 1g --gpu-memory-limit=0.5 u",
        f"run {RUNAI} --annotation=RUNAI_GPU_MEMORY_REQUEST=1g --annotation=RUNAI_GPU_MEMORY_LIMIT=0.5 u",
    ),
    # GPUs.
    ("run --gpus all --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=all u"),
    ("run --gpus=-1 --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=all u"),
    ("run --gpus 2 --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=2 u"),
    ("run --gpus device=1 --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=device=1 u"),
    ('run --gpus "device=0,1" --gpu-memory 0.3 u', f"run {THIRD} --annotation=RUNAI_GPUS=device=0,1 u"),
    ("run --gpus device=0,1 --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=device=0,1 u"),
    ("run --gpus device=GPU-1-2 --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=device=GPU-1-2 u"),
    ("run --gpus count=2 --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=2 u"),
    ("run --gpus count=all,driver=nvidia --gpu-memory 0.3 u", f"run {THIRD} --annotation=RUNAI_GPUS=all u"),
    (
        "run --gpus all,capabilities=video --gpu-memory 0.3 u",
        f"run {THIRD} --annotation=RUNAI_GPUS=all --env=NVIDIA_DRIVER_CAPABILITIES=video u",
    ),
    (
        'run --gpus all,"capabilities=gpu,compute,utility" --gpu-memory 0.3 u',
        f"run {THIRD} --annotation=RUNAI_GPUS=all --env=NVIDIA_DRIVER_CAPABILITIES=compute,utility u",
    ),
    ("run --gpus capabilities=gpu --gpu-memory 0.3 u", f"run {ONE} u"),
    # Options of docker's with values, which may look like ours or like an image.
    ("run -e A=B --gpu-memory 0.3 u", f"run -e A=B {THIRD} u"),
    ("run -e=A=B --gpu-memory 0.3 u", f"run -e=A=B {THIRD} u"),
    ("run -eA=B --gpu-memory 0.3 u", f"run -eA=B {THIRD} u"),
    ("run -ie A=B --gpu-memory 0.3 u", f"run -ie A=B {THIRD} u"),
    ("run -itd --gpu-memory 0.3 u", f"run -itd {THIRD} u"),
    ("run -itdeA --gpu-memory 0.3 u", f"run -itdeA {THIRD} u"),
    ("run -d=false --gpu-memory 0.3 u", f"run -d=false {THIRD} u"),
    ("run -dw /x --gpu-memory 0.3 u", f"run -dw /x {THIRD} u"),
    ("run -p 80:80 -v /a:/b --gpu-memory 0.3 u", f"run -p 80:80 -v /a:/b {THIRD} u"),
    ("run -m 1g -c 5 --gpu-memory 0.3 u", f"run -m 1g -c 5 {THIRD} u"),
    ("run -h host -u 1:1 -l k=v --gpu-memory 0.3 u", f"run -h host -u 1:1 -l k=v {THIRD} u"),
    ("run --name run --gpu-memory 0.3 u", f"run --name run {THIRD} u"),
    ("run --entrypoint --gpu-memory --gpu-memory 0.3 u", f"run --entrypoint --gpu-memory {THIRD} u"),
    ("run -e --gpu-memory --gpu-memory 0.3 u", f"run -e --gpu-memory {THIRD} u"),
    ("run -w -- --gpu-memory 0.3 u", f"run -w -- {THIRD} u"),
    ("run --hostname= --gpu-memory 0.3 u", f"run --hostname= {THIRD} u"),
    ("run --rm=false --init --gpu-memory 0.3 u", f"run --rm=false --init {THIRD} u"),
    ("run --device /dev/null --gpu-memory 0.3 u", f"run --device /dev/null {THIRD} u"),
    ("run --memory 2g --shm-size=1g --gpu-memory 0.3 u", f"run --memory 2g --shm-size=1g {THIRD} u"),
    ("run --annotation a=b --gpu-memory 0.3 u", f"run --annotation a=b {THIRD} u"),
    ("run -e RUNAI_GPU_MEMORY=1 --gpu-memory 0.3 u", f"run -e RUNAI_GPU_MEMORY=1 {THIRD} u"),
    ("run --mount type=tmpfs,dst=/x --ulimit nofile=9 --gpu-memory 0.3 u",
     f"run --mount type=tmpfs,dst=/x --ulimit nofile=9 {THIRD} u"),
    ("run --health-cmd a~b --stop-signal 9 --gpu-memory 0.3 u", f"run --health-cmd a~b --stop-signal 9 {THIRD} u"),
    ("run --net x --dns-opt a --net-alias b --gpu-memory 0.3 u", f"run --net x --dns-opt a --net-alias b {THIRD} u"),
    # The runtime.
    ("run --runtime runai --gpu-memory 0.3 u", "run --runtime runai --annotation=RUNAI_GPU_MEMORY=0.3 u"),
    ("run --runtime=runai --gpu-memory 0.3 u", "run --runtime=runai --annotation=RUNAI_GPU_MEMORY=0.3 u"),
    ("run --runtime crun u", "run --runtime crun u"),
    # Where options end.
    ("run --gpu-memory 0.3 -- u x", f"run {THIRD} -- u x"),
    ("run --gpu-memory 0.3 u -- --gpus 1", f"run {THIRD} u -- --gpus 1"),
    ("run --gpu-memory 0.3 u --gpu-memory 5g", f"run {THIRD} u --gpu-memory 5g"),
    ("run u --gpu-memory 0.3", "run u --gpu-memory 0.3"),
    ("run u train --gpu-memory=0.3 --gpus 1", "run u train --gpu-memory=0.3 --gpus 1"),
    ("run -- u --gpu-memory 0.3", "run -- u --gpu-memory 0.3"),
    ("run --rm u sh -c runai-docker~run~--gpu-memory~1", "run --rm u sh -c runai-docker~run~--gpu-memory~1"),
    ("run --gpu-memory 0.3 u --help", f"run {THIRD} u --help"),
    ("run --gpu-memory 0.3 run create", f"run {THIRD} run create"),
    # docker's own options, in front.
    ("-D run --gpu-memory 0.3 u", f"-D run {THIRD} u"),
    ("--debug -l error run --gpu-memory 0.3 u", f"--debug -l error run {THIRD} u"),
    ("--log-level=error container run --gpu-memory 0.3 u", f"--log-level=error container run {THIRD} u"),
    ("--gpu-memory 0.3 run u", ""),
]  # fmt: skip


def words(text: str) -> list[str]:
    return [word.replace("~", " ") for word in text.split(" ") if word]


@pytest.fixture(scope="module")
def docker() -> str:
    folder = binaries()
    return str(folder / "usr/bin/docker") if folder else "/usr/bin/docker"


def recording(folder: Path, api: str) -> Iterator[Recorder]:
    with Recorder(folder, api) as recorder, pytest.MonkeyPatch.context() as patch:
        for name, value in recorder.environment().items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield recorder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    yield from recording(tmp_path_factory.mktemp("e"), NEW_API)


@pytest.fixture
def fresh_cache(engine: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "runai-docker"


@pytest.mark.parametrize(("ours", "by_hand"), [shape for shape in SHAPES if shape[1]])
def test_the_engine_is_asked_for_the_same(docker: str, engine: Recorder, ours: str, by_hand: str) -> None:
    command, dry_run = translated(docker, words(ours))
    assert not dry_run
    assert engine.asked([docker, *command]) == engine.asked([docker, *words(by_hand)])


@pytest.fixture
def old_engine(tmp_path: Path) -> Iterator[Recorder]:
    yield from recording(tmp_path, OLD_API)


def test_an_engine_without_annotations(docker: str, old_engine: Recorder) -> None:
    command, _ = translated(docker, words("run -e RUNAI_GPU_MEMORY=1 --gpus 1 --gpu-memory 0.3 u"))
    _, asked = old_engine.asked([docker, *command])
    assert sorted(asked["Env"]) == ["RUNAI_GPUS=1", "RUNAI_GPU_MEMORY=0.3"]
    assert asked["HostConfig"]["Runtime"] == "runai"


@pytest.mark.parametrize(
    "arguments",
    [
        "ps -a",
        "--gpu-memory 0.3 run u",
        "build --gpu-memory 3 .",
        "compose run --gpu-memory 3 x",
        "exec x --gpu-memory 3",
        "container ls --gpu-memory",
        "run --no-such --gpu-memory 3 u",
        "run -Z --gpu-memory 3 u",
        "run --gpu-memo 3 u",
        "--no-such run --gpu-memory 3 u",
        "run",
        "buildx build --help",
        "help ps",
    ],
)
def test_what_is_dockers_alone(docker: str, engine: Recorder, arguments: str) -> None:
    assert translated(docker, words(arguments)) == (words(arguments), False)


def test_an_unknown_option_after_ours(docker: str, engine: Recorder) -> None:
    """Docker is left to say which one it is that it doesn't know."""
    command, _ = translated(docker, words("run --gpu-memory 0.3 --no-such u"))
    done = subprocess.run([docker, *command], capture_output=True, text=True, check=False, env=engine.environment())
    assert "unknown flag: --no-such" in done.stderr


def test_options_are_asked_for_once(
    docker: str, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = translated(docker, words("run --gpu-memory 0.3 u"))
    monkeypatch.setattr("runai_runtime.docker.options.help_of", None)
    assert translated(docker, words("run --gpu-memory 0.3 u")) == first
    with pytest.raises(TypeError):  # another engine
        translated(docker, words("-H unix:///other run --gpu-memory 0.3 u"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"currentContext": "other"}')
    with pytest.raises(TypeError):
        translated(docker, words("run --gpu-memory 0.3 u"))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": 1}', '{"key": [], "options": {"--gpus": 1}}'])
def test_a_damaged_cache(docker: str, fresh_cache: Path, text: str) -> None:
    first = translated(docker, words("run --gpu-memory 0.3 u"))
    for path in fresh_cache.iterdir():
        path.write_text(text)
    assert translated(docker, words("run --gpu-memory 0.3 u")) == first
