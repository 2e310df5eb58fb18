"""What doctor --live makes of what it saw, with a client that says what docker would; and the image and the probe."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.configure import NATIVE
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import FAULT, OK, WARNING, Finding, Unknown
from runai_runtime.doctor.image import known_libraries, loader_of, needed, write_image
from runai_runtime.doctor.live import judge, not_started, try_shares
from runai_runtime.doctor.report import examine
from runai_runtime.elf import read_library
from runai_runtime.verify import check_glibc
from tests.unit.doctor.made import GPU, Made

MIB = 1 << 20
SHARE = 1024 * MIB
GPU_OF_8G = GPU | {"total": 8192 * MIB, "reserved": 64 * MIB}
NO_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


def way(took: int, error: str = NO_MEMORY, call: str = "cuMemAlloc") -> dict[str, Any]:
    return {"call": call, "took": took * MIB, "error": error}


def said(**more: Any) -> str:
    """A probe that was refused at 850 of 1024 MiB."""
    ways = [way(848), way(0, call="cuMemCreate"), way(2, call="cuMemAllocManaged")]
    return json.dumps({"gpus": 1, "cuda": SHARE, "nvml": SHARE, "free": 860 * MIB, "ways": ways} | more) + "\n"


JUDGED = [
    (said(), OK, "sees 1024 MiB; it took 850 beside its context, then was refused"),
    (said(nvml=0), OK, "it took 850"),
    (said(ways=[way(850), way(0, "CUDA_ERROR_NOT_SUPPORTED", "cuMemCreate")]), OK, "it took 850"),
    (said(ways=[way(1056, "")]), FAULT, "a container with 1024 MiB took 1056, and cuMemAlloc wasn't refused"),
    (
        said(ways=[way(850), way(0), way(206, "", "cuMemAllocManaged")], cuda=8192 * MIB),
        FAULT,
        "took 1056, and cuMemAllocManaged wasn't refused",
    ),
    (said(cuda=8192 * MIB), FAULT, "sees 1 GPU(s), of 8192 MiB by CUDA"),
    (said(nvml=8192 * MIB), FAULT, "of 8192 MiB by NVML"),
    (said(gpus=2), FAULT, "sees 2 GPU(s): what"),
    (said(ways=[way(850), way(0, "CUDA_ERROR_UNKNOWN", "cuMemCreate")]), WARNING, "cuMemCreate answered CUDA_ERROR_UN"),
    (said(ways=[way(1024)]), FAULT, "took 1024 of 1024 MiB beside its context, which isn't counted"),
    (said(ways=[way(1000)]), WARNING, "took 1000 of 1024 MiB, although 860 were shown as free"),
    (said(ways=[way(0, "CUDA_ERROR_NOT_SUPPORTED")] * 3), WARNING, "cuMemAlloc answered CUDA_ERROR_NOT_SUPPORTED"),
    (said(ways=[way(0)], free=0), WARNING, "took 0 of 1024 MiB, then cuMemAlloc answered"),
    (said(ways=[way(100)]), WARNING, "took 100 of 1024 MiB and was refused, although 860 were shown as free"),
    (json.dumps({"call": "dlopen", "error": "libcuda.so.1: gone"}), FAULT, "without the driver: libcuda.so.1: gone"),
    (json.dumps({"call": "cuDevicePrimaryCtxRetain", "error": NO_MEMORY}), WARNING, "no room for a context"),
    (json.dumps({"call": "cuInit", "error": "CUDA_ERROR_NO_DEVICE"}), FAULT, "cuInit answers CUDA_ERROR_NO_DEVICE"),
    ("", FAULT, "its program said ''"),
    ("{}", FAULT, "its program said '{}'"),
    ("hello\n", FAULT, "its program said 'hello'"),
]

AROUND = [
    (said(), OK, "; around libvgpu it took 850, then the agent refused it"),
    (said(ways=[way(850), way(0, "CUDA_ERROR_NOT_SUPPORTED")]), OK, "; around libvgpu it took 850, then the agent"),
    (said(ways=[way(1024)]), FAULT, "goes around libvgpu took 1024 of 1024 MiB"),
    (
        json.dumps({"call": "cuDevicePrimaryCtxRetain", "error": NO_MEMORY}),
        WARNING,
        "around libvgpu that wasn't tried: cuDevicePrimaryCtxRetain answers CUDA_ERROR_OUT_OF_MEMORY",
    ),
    (
        said(ways=[way(0, "CUDA_ERROR_NOT_SUPPORTED")] * 2),
        WARNING,
        "took 0, then cuMemAlloc answered CUDA_ERROR_NOT_SU",
    ),
    (said(ways=[way(9), way(0, "CUDA_ERROR_INVALID_VALUE")]), WARNING, "answered CUDA_ERROR_INVALID_VALUE"),
    (said(ways=[way(1056, "")]), FAULT, "goes around libvgpu took 1056 of 1024 MiB: the agent didn't refuse it"),
    (json.dumps({"call": "dlopen", "error": "odd"}), WARNING, "around libvgpu that wasn't tried: dlopen answers odd"),
]

RUNTIME_SAID = (
    "docker: Error response from daemon: OCI runtime create failed: runai: {}: unknown.\nSee 'docker --help'.\n"
)
NOT_STARTED = [
    (
        RUNTIME_SAID.format("GPU 0 has 10 MiB free of 100 MiB; ask for less"),
        WARNING,
        "GPU 0 has 10 MiB free of 100 MiB",
    ),
    (RUNTIME_SAID.format("a container gets 10 MiB of it at most; ask for less"), WARNING, "gets 10 MiB of it at most"),
    (RUNTIME_SAID.format("the agent is away; see why"), FAULT, "no container with a share starts: the agent is away"),
    ("WARNING: x\ndocker: Error response from daemon: odd.\n", FAULT, "starts: Error response from daemon: odd"),
    ("exec /runai-probe: odd\n", FAULT, "starts: exec /runai-probe: odd"),
    ("", FAULT, "docker run ended with 125"),
    ("runai: \n", FAULT, "starts: runai:"),
]


def well_put(found: Finding) -> bool:
    return bool(found.mend) is (found.level != OK) and not found.what.endswith(".") and not found.mend.endswith(".")


@pytest.mark.parametrize(("text", "level", "words"), JUDGED)
def test_what_the_probe_saw(text: str, level: str, words: str) -> None:
    found = judge(text, SHARE)
    assert (found.level, words in found.what, well_put(found)) == (level, True, True), found


@pytest.mark.parametrize(("text", "level", "words"), AROUND)
def test_what_the_probe_saw_around_libvgpu(text: str, level: str, words: str) -> None:
    found = judge(said() + text, SHARE)
    assert (found.level, words in found.what, well_put(found)) == (level, True, True), found


def test_what_is_wrong_with_libvgpu_comes_first() -> None:
    assert "sees 2 GPU(s)" in judge(said(gpus=2) + said(), SHARE).what


@pytest.mark.parametrize(("text", "level", "words"), NOT_STARTED)
def test_a_container_that_did_not_start(text: str, level: str, words: str) -> None:
    found = not_started(125, text)
    assert (found.level, words in found.what, well_put(found)) == (level, True, True), found


class Client:
    """A docker client of MADE's that writes down what it is asked, and answers with files and exit codes."""

    def __init__(self, made: Made) -> None:
        self.made, self.asked = made, made.folder / "asked"
        self.answers: dict[str, tuple[str, int]] = {
            "info": (json.dumps(made.info), 0),
            "import": ("sha256:made", 0),
            "container": ("", 0),
            "image": ("sha256:made", 0),
            "context": ("unix:///var/run/docker.sock", 0),
            "run": (said(), 0),
        }

    def facts(self) -> Facts:
        cases = []
        for command, (text, code) in self.answers.items():
            self.made.write(f"answers/{command}", text)
            cases.append(f"{command}) cat {self.made.root}/answers/{command}; exit {code};;")
        script = (
            f'echo "$*" >>{self.asked}\ncase $1 in import) cat >/dev/null;; esac\ncase $1 in {" ".join(cases)} esac'
        )
        self.made.docker = [str(self.made.script("client", script))]
        return self.made.facts()

    def live(self) -> dict[str, Finding]:
        facts = self.facts()
        return try_shares(facts, examine(facts))

    def commands(self) -> list[str]:
        """Those that make or remove something."""
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        return [line for line in lines if not line.startswith(("info", "context", "container ls", "image ls"))]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("runai_runtime.doctor.live.LATE", 0)
    made = Made(tmp_path)
    made.nvml["gpus"] = [GPU_OF_8G]
    return made


def test_one_container_for_each_gpu(made: Made) -> None:
    made.nvml["gpus"] = [GPU_OF_8G, GPU_OF_8G | {"index": "1:0", "uuid": "MIG-1"}]
    client = Client(made)
    found = client.live()
    assert {name: one.level for name, one in found.items()} == {"share of GPU 0": OK, "share of GPU 1:0": OK}
    imported, first, second, removed = client.commands()
    assert imported.startswith("import ")
    for line, uuid in ((first, "GPU-0"), (second, "MIG-1")):
        assert "--runtime=runai --network=none" in line
        # Nobody has measured what a context takes on these.
        assert f"--env=RUNAI_GPU_MEMORY=1024m --env=RUNAI_GPUS=device={uuid} sha256:made /runai-probe {SHARE}" in line
    assert removed == "image rm --force sha256:made"
    label = imported.partition("--change=LABEL ")[2].split()[0]
    assert label.startswith("runai.doctor=")
    assert f"--label={label}" in first
    lookups = [line for line in client.asked.read_text().splitlines() if line.startswith(("container ls", "image ls"))]
    assert [line.split()[0] for line in lookups if f"--filter=label={label}" in line] == ["container", "image"]


def test_a_container_that_fails_is_removed(made: Made) -> None:
    client = Client(made)
    client.answers |= {"run": ("", 125), "container": ("c0ffee", 0)}
    assert client.live()["share of GPU 0"].level == FAULT
    assert client.commands()[2] == "container rm --force --volumes c0ffee"


def test_what_cannot_be_removed_is_named(made: Made) -> None:
    client = Client(made)
    client.answers["image"] = ("sha256:made", 1)
    found = client.live()
    assert found["share of GPU 0"].level == OK
    stays = found["what stays"]
    assert (stays.level, well_put(stays)) == (WARNING, True)
    assert stays.what == "what was made for it stays: perhaps the image (client failed (sha256:made))"


@pytest.mark.parametrize("by", ["DOCKER_HOST", "context"])
def test_an_engine_elsewhere_is_left_alone(by: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(made)
    if by == "context":
        client.answers["context"] = ("ssh://far", 0)
    else:
        monkeypatch.setenv("DOCKER_HOST", "ssh://far")
    found = client.live()
    assert list(found) == ["live"]
    assert (found["live"].level, "docker's engine is ssh://far" in found["live"].what) == (FAULT, True)
    assert client.commands() == []


def test_a_container_that_does_not_end_is_removed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(made)
    client.answers |= {"run": ("", 0), "container": ("c0ffee", 0)}
    hang = f'case $1 in run) echo "$*" >>{client.asked}; exec sleep 60;; esac'
    slow = made.script("slow", f'{hang}\nexec {made.folder}/client "$@"')
    facts = client.facts()
    facts.docker = [str(slow)]
    monkeypatch.setattr("runai_runtime.doctor.live.SECONDS", 3)
    found = try_shares(facts, examine(facts))["share of GPU 0"]
    assert (found.level, "didn't end well: slow didn't answer within 3 s" in found.what) == (FAULT, True), found
    assert any(line.startswith("container rm --force") for line in client.commands())


def test_an_image_that_cannot_be_made(made: Made) -> None:
    client = Client(made)
    client.answers["import"] = ("no room", 1)
    assert client.live() == {
        "live": Finding(
            FAULT,
            "no image could be made for a container: client failed (no room)",
            "see docker's own log (journalctl -u docker)",
        )
    }


def test_a_gpu_smaller_than_what_is_tried(made: Made) -> None:
    made.nvml["gpus"] = [GPU_OF_8G | {"total": 512 * MIB}]
    found = Client(made).live()["share of GPU 0"]
    assert (found.level, "448 MiB are fewer than the 1024 MiB" in found.what) == (WARNING, True)


@pytest.mark.parametrize("fault", ["engine", "runtime", "driver", "configuration"])
def test_nothing_is_started_where_nothing_can_start(fault: str, made: Made) -> None:
    client = Client(made)
    if fault == "engine":
        client.answers["info"] = ("", 1)
    elif fault == "runtime":
        client.answers["info"] = (json.dumps(made.info | {"Runtimes": {}}), 0)
    elif fault == "driver":
        made.nvml = {"refusal": "no GPU; see why"}
    else:
        made.config.write_text("{")
    found = client.live()
    assert list(found) == ["live"]
    assert (found["live"].level, found["live"].what.startswith(f"no container was started: {fault}: ")) == (FAULT, True)
    assert client.commands() == []


def test_the_image_has_the_probe_and_what_the_loader_needs() -> None:
    probe = str(NATIVE / "runai-probe")
    stream = io.BytesIO()
    write_image(stream, probe, [])
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        entries = {entry.name: entry for entry in tar}
    names = {Path(name).name for name in entries}
    assert {"runai-probe", "libc.so.6", "libdl.so.2", "libm.so.6", Path(loader_of(probe)).name, "proc"} <= names
    assert not any(name.startswith(("libcuda", "libnvidia")) for name in names)
    for name, entry in entries.items():
        parent = str(Path(name).parent)
        assert parent == "." or entries[parent].isdir()
        assert entry.isdir() or entry.size > 0


def test_what_a_driver_needs_comes_along() -> None:
    known = known_libraries()
    assert known["libdl.so.2"] in needed(["libc.so.6"], [str(NATIVE / "runai-probe")], known)
    with pytest.raises(Unknown, match=r"doesn't know libc\.so\.6"):
        needed(["libc.so.6"], [], {})


def test_the_probe_runs_with_a_glibc_as_old_as_ours_may() -> None:
    probe = read_library(str(NATIVE / "runai-probe"))
    assert set(probe.needed) <= {"libc.so.6", "libdl.so.2", "libpthread.so.0"}
    assert check_glibc(probe).fault == ""
    assert probe.relro and probe.bind_now and not probe.executable_stack
