"""Every check, on a host where it is well and on hosts where it isn't."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runai_runtime.doctor.finding import FAULT, OK, WARNING, Finding
from runai_runtime.doctor.report import CHECKS, examine, looked
from tests.docker.host import NATIVE
from tests.unit.doctor.made import GPU, Made, remove

UVM = "sys/module/nvidia_uvm/parameters/uvm_disable_hmm"
Change = Callable[[Made], object]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def look(made: Made, name: str) -> Finding:
    return looked(CHECKS[name], made.facts())


def hmm_unknown(made: Made, parameter: str) -> None:
    made.nvml["modes"] = [""]
    made.write(UVM, parameter)


def hybrid(made: Made) -> None:
    remove(made, "sys/fs/cgroup/cgroup.controllers")
    made.write("sys/fs/cgroup/devices/x", "")
    made.write("sys/fs/cgroup/unified/x", "")
    made.configure(runtime=str(made.script("crun", "echo crun version 1.8.1; echo +SECCOMP")))


def other_low_level(made: Made) -> None:
    made.configure(runtime=str(made.script("runc2", "true")))


def with_hook(made: Made) -> None:
    made.write("usr/bin/nvidia-container-runtime-hook", "")


def snap_alone(made: Made) -> None:
    remove(made, "usr/bin/docker")
    made.write("snap/bin/docker", "")


def no_runtime(made: Made) -> None:
    made.info["Runtimes"] = {}
    made.daemon.write_text("{}")


def moved(made: Made) -> None:
    made.program.write_text("#!/nowhere/runai-launch\n")


CASES: list[tuple[str, Change, str, str]] = [
    ("configuration", lambda made: made.config.unlink(), FAULT, "it isn't there"),
    ("configuration", lambda made: made.config.write_text("{"), FAULT, "is not valid JSON"),
    ("configuration", lambda made: made.configure(enforcement="maybe"), FAULT, '"enforcement"'),
    ("our programs", lambda made: made.configure(agent="/nowhere/runai-agent"), FAULT, "/nowhere/runai-agent"),
    (
        "our programs",
        lambda made: made.configure(hook=str(made.config), agent=f"{NATIVE}/runai-agent"),
        FAULT,
        "config.json",
    ),
    ("state", lambda made: made.configure(state="/dev/null/s"), FAULT, "can't be written to"),
    ("state", lambda made: made.configure(state="/" + "s" * 40), WARNING, "ends at 107"),
    ("state", lambda made: made.configure(state="/" + "s" * 40, enforcement="agent"), FAULT, "ends at 107"),
    ("fitted", lambda made: made.configure(fitted="/dev/null/f"), FAULT, "can't be written to"),
    ("driver libraries", lambda made: made.configure(driver={"libraries": ["/nowhere"]}), FAULT, "no NVIDIA driver"),
    ("driver", lambda made: made.nvml.clear(), FAULT, "doesn't answer"),
    ("driver", lambda made: setattr(made, "nvml", {"refusal": "no GPU; see why"}), FAULT, "no GPU"),
    ("driver version", lambda made: made.nvml.update(driver="470.1"), WARNING, "doesn't know the driver 470.1"),
    ("driver version", lambda made: setattr(made, "nvml", {"refusal": "no; see"}), WARNING, "shows no GPU"),
    ("driver functions", lambda made: made.configure(libvgpu="/nowhere"), FAULT, "/nowhere/libcuda.so.1"),
    ("device nodes", lambda made: remove(made, "dev/nvidia-uvm"), FAULT, "/dev/nvidia-uvm isn't there"),
    ("device nodes", lambda made: made.nvml.update(gpus=[GPU | {"minor": 3}]), FAULT, "/dev/nvidia3 isn't there"),
    ("MIG", lambda made: made.nvml.update(divided=[GPU]), WARNING, "GPU 0 is in MIG mode"),
    ("HMM", lambda made: made.nvml.update(modes=["none", "HMM"]), WARNING, "GPU 1"),
    ("HMM", lambda made: made.nvml.update(modes=["ATS"]), WARNING, "ATS"),
    ("HMM", lambda made: hmm_unknown(made, "N"), WARNING, "uvm_disable_hmm is off"),
    ("HMM", lambda made: hmm_unknown(made, ""), WARNING, "neither NVML nor"),
    ("MPS", lambda made: made.write("proc/77/comm", "nvidia-cuda-mps\n"), WARNING, "process 77"),
    ("MPS", lambda made: made.write("tmp/nvidia-mps/control_privileged", ""), WARNING, "/tmp/nvidia-mps"),
    ("kernel", lambda made: made.write("proc/sys/kernel/osrelease", "4.18.0-553"), WARNING, "5.9 or later"),
    ("kernel", lambda made: remove(made, "proc/sys/kernel/seccomp/actions_avail"), WARNING, "user notifications"),
    ("ptrace scope", lambda made: made.write("proc/sys/kernel/yama/ptrace_scope", "3"), WARNING, "is 3"),
    ("cgroups", lambda made: remove(made, "sys/fs/cgroup/cgroup.controllers"), FAULT, "no cgroups"),
    ("cgroups", hybrid, FAULT, "crun refuses"),
    ("SELinux, AppArmor", lambda made: made.write("sys/fs/selinux/enforce", "1"), WARNING, "wasn't tried"),
    ("low-level runtime", lambda made: made.configure(runtime="/nowhere/runc"), FAULT, "can't be started"),
    ("low-level runtime", other_low_level, WARNING, "SCMP_ACT_NOTIFY"),
    ("snap", snap_alone, FAULT, "snap"),
    ("snap", lambda made: made.write("snap/bin/docker", ""), WARNING, "beside /usr/bin/docker"),
    ("engine", lambda made: setattr(made, "docker", []), FAULT, "no docker on PATH"),
    ("engine", lambda made: setattr(made, "docker", ["/bin/false"]), FAULT, "exit status 1"),
    ("engine", lambda made: made.info.update(ServerErrors=["no daemon"]), FAULT, "no daemon"),
    ("engine", lambda made: made.info.update(SecurityOptions=["name=rootless"]), FAULT, "without root"),
    ("runtime", no_runtime, FAULT, "docker has no runtime runai"),
    ("runtime", lambda made: made.info.update(Runtimes={}), FAULT, "hasn't read it"),
    ("runtime", lambda made: made.register(Path("/elsewhere")), WARNING, "/elsewhere"),
    ("runtime", lambda made: made.daemon.write_text("{"), FAULT, "is not the JSON that dockerd reads"),
    ("runtime", lambda made: setattr(made, "docker", []), WARNING, "couldn't be looked at"),
    ("registered program", lambda made: made.program.unlink(), FAULT, "isn't there"),
    ("registered program", lambda made: made.program.chmod(0o644), FAULT, "may not be executed"),
    ("registered program", moved, FAULT, "interpreter"),
    ("registered program", other_low_level, WARNING, "runc2"),
    ("registered program", no_runtime, WARNING, "docker has no runtime"),
    ("systemd cgroups", with_hook, WARNING, "daemon-reload"),
    ("systemd cgroups", lambda made: remove(made, "dev/char/195:255"), WARNING, "/dev/char/195:255 isn't there"),
    ("systemd cgroups", lambda made: setattr(made, "docker", []), WARNING, "couldn't be looked at"),
]


def test_a_host_on_which_all_is_well(made: Made) -> None:
    findings = examine(made.facts())
    assert {name: found for name, found in findings.items() if found.level != OK or found.mend} == {}


@pytest.mark.parametrize(("name", "change", "level", "words"), CASES)
def test_what_is_wrong_is_found_with_its_mend(made: Made, name: str, change: Change, level: str, words: str) -> None:
    change(made)
    found = look(made, name)
    assert (found.level, words in found.what) == (level, True), found
    assert found.mend
    assert not found.what.endswith(".")
    assert not found.mend.endswith(".")


def test_every_check_is_tried_where_it_is_not_well() -> None:
    elsewhere = {"user", "docker --gpus"}  # below
    assert {case[0] for case in CASES} | elsewhere == set(CHECKS)


def test_who_is_not_root_is_told(made: Made) -> None:
    facts = made.facts()
    facts.user = 1000
    assert looked(CHECKS["user"], facts).level == WARNING


def test_plain_gpus_are_no_fault_but_said(made: Made) -> None:
    assert "doesn't work without NVIDIA's toolkit" in look(made, "docker --gpus").what
    with_hook(made)
    assert "works" in look(made, "docker --gpus").what


def test_a_folder_on_noexec(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noexec:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda _path: Noexec)
    found = look(made, "fitted")
    assert (found.level, "noexec" in found.what) == (WARNING, True)


@pytest.mark.parametrize(
    ("enforcement", "level"), [("auto", WARNING), ("agent", FAULT), ("interposer", OK)], ids=lambda value: value
)
def test_no_agent_is_what_the_configuration_makes_of_it(made: Made, enforcement: str, level: str) -> None:
    made.configure(enforcement=enforcement)
    made.nvml["driver"] = "470.1"
    assert look(made, "driver version").level == level


def test_selinux_that_permits_and_apparmor_are_well(made: Made) -> None:
    made.write("sys/fs/selinux/enforce", "0")
    made.write("sys/module/apparmor/parameters/enabled", "Y")
    found = look(made, "SELinux, AppArmor")
    assert (found.level, "AppArmor is on" in found.what) == (OK, True)


def test_hmm_that_cannot_be_looked_at_says_what_to_do(made: Made) -> None:
    hmm_unknown(made, "")
    assert "nvidia-modprobe" in look(made, "HMM").mend


def test_hmm_by_the_module_where_nvml_does_not_say(made: Made) -> None:
    hmm_unknown(made, "Y")
    assert look(made, "HMM").level == OK


def test_cgroupfs_is_well_with_the_hook(made: Made) -> None:
    with_hook(made)
    made.info["CgroupDriver"] = "cgroupfs"
    assert look(made, "systemd cgroups").level == OK


def test_cgroups_of_version_1(made: Made) -> None:
    remove(made, "sys/fs/cgroup/cgroup.controllers")
    made.write("sys/fs/cgroup/devices/x", "")
    assert look(made, "cgroups") == Finding(OK, "version 1")
