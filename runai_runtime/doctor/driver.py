"""The driver: its libraries and nodes, what it is known to do, and its ways around a share."""

from __future__ import annotations

import os

from runai_runtime.agent import PARAMS, params_of
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import Finding, Unknown, fault, of_refusal, ok, warning
from runai_runtime.errors import RefusalError
from runai_runtime.host import Host
from runai_runtime.mps import PIPES, has_server
from runai_runtime.scan import NO_DRIVER
from runai_runtime.verify import verify

HMM_OFF = "/sys/module/nvidia_uvm/parameters/uvm_disable_hmm"
NO_HMM = 'put "options nvidia_uvm uvm_disable_hmm=1" into a file of /etc/modprobe.d, and boot'
MPS_SERVER = "nvidia-cuda-mps"  # of nvidia-cuda-mps-control and -server: /proc/PID/comm has 15 letters


def without_agent(host: Host, why: str, mend: str) -> Finding:
    """What the configuration makes of it that no agent can keep a share."""
    if host.enforcement == "agent":
        return fault(
            f'{why}, and the configuration has "enforcement": "agent": containers with a share don\'t start', mend
        )
    if host.enforcement == "interposer":
        return ok(f"{why}; the configuration wants none")
    return warning(f"{why}: libvgpu alone keeps shares, and programs that go around it aren't bounded", mend)


def libraries(facts: Facts) -> Finding:
    missing = [soname for soname, path in facts.libraries.items() if not path]
    if missing:
        return fault(f"this host has no NVIDIA driver: {missing[0]} is in none of its library folders", NO_DRIVER)
    return ok(", ".join(facts.libraries.values()))


def answer(facts: Facts) -> Finding:
    try:
        said = facts.driver
    except Unknown as why:
        return fault(why.at_length(), "see whether nvidia-smi works, and the kernel's log (dmesg)")
    if "refusal" in said:
        return of_refusal(RefusalError(said["refusal"]))
    whole = [gpu for gpu in said["gpus"] if "parent" not in gpu] + said["divided"]
    indices: dict[str, list[str]] = {}
    for gpu in sorted(whole, key=lambda gpu: int(gpu["index"])):
        indices.setdefault(gpu["name"], []).append(str(gpu["index"]))
    names = "; ".join(f"{','.join(of_name)}: {name}" for name, of_name in indices.items())
    return ok(f"driver {said['driver']}, CUDA {said['cuda']}, GPU {names}")


def answered(facts: Facts, key: str) -> object:
    said = facts.driver
    if key not in said:
        raise Unknown("the driver shows no GPU")
    return said[key]


def version(facts: Facts) -> Finding:
    driver = str(answered(facts, "driver"))
    if params_of(driver):
        return ok(f"the agent knows {driver}")
    why = f"the agent doesn't know the driver {driver}, it knows {min(PARAMS)} to {max(PARAMS)}"
    return without_agent(facts.host, why, "take a driver of these, or a version of runai-runtime that knows it")


def symbols(facts: Facts) -> Finding:
    there = {soname: path for soname, path in facts.libraries.items() if path}
    try:
        reports = verify(facts.host.libvgpu, there)
    except RefusalError as refusal:
        return of_refusal(refusal)
    faults = [f"{report.path}: {one}" for report in reports for one in report.faults()]
    if faults:
        return fault(f"our own library is not as it has to be ({faults[0]})", "install runai-runtime again")
    if not there:
        raise Unknown("the driver's libraries aren't there")
    suspects = [name for report in reports if report.driver for name in report.driver.suspects]
    if suspects:
        return warning(
            f"this driver has {len(suspects)} function(s) that look like device memory and that libvgpu doesn't know, "
            f"such as {suspects[0]}; with an agent they are bounded all the same",
            "see runai-ctl verify, and take a version of runai-runtime that knows this driver",
        )
    return ok("libvgpu is as it has to be, and knows what this driver has for device memory")


def nodes(facts: Facts) -> Finding:
    wanted = ["nvidiactl", "nvidia-uvm"]
    try:
        gpus = facts.driver
        wanted += sorted({f"nvidia{gpu['minor']}" for gpu in [*gpus.get("gpus", []), *gpus.get("divided", [])]})
    except Unknown:
        wanted.append("nvidia0")
    folder = facts.host.devices
    missing = [os.path.join(folder, name) for name in wanted if not facts.there(os.path.join(folder, name))]
    if missing:
        return fault(
            f"{', '.join(missing)} isn't there; after a boot nothing makes these nodes until somebody asks for them",
            "run nvidia-smi and nvidia-modprobe -u -c0, at each boot by a service such as nvidia-persistenced",
        )
    return ok(f"{', '.join(wanted)} in {folder}")


def mig(facts: Facts) -> Finding:
    divided = [str(gpu["index"]) for gpu in facts.driver.get("divided", [])]
    if not divided:
        return ok("no GPU is in MIG mode")
    return warning(
        f"GPU {', '.join(divided)} is in MIG mode: libvgpu alone keeps a share of an instance, as the agent knows "
        "whole GPUs only",
        f"turn it off where shares have to hold against hostile programs (nvidia-smi -i {divided[0]} -mig 0)",
    )


def hmm(facts: Facts) -> Finding:
    """Which GPUs reach ordinary memory of a process, and may move it to the device (docs/threats.md)."""
    try:
        modes = [str(mode) for mode in facts.driver.get("modes", [])]
    except Unknown:
        modes = []
    for mode in ("HMM", "ATS"):
        if mode in modes:
            return warning(
                f"GPU {modes.index(mode)} uses ordinary memory of processes ({mode}), and may move it to the device: "
                "no share bounds that",
                NO_HMM if mode == "HMM" else "on such a machine count on shares between honest programs alone",
            )
    if modes and all(mode == "none" for mode in modes):
        return ok("no GPU uses ordinary memory of processes")
    allowed = facts.read(HMM_OFF)
    if allowed in ("N", "0"):
        return warning(
            "the driver may use ordinary memory of processes (uvm_disable_hmm is off) and move it to the device, where "
            "GPU, kernel and driver can do that: no share bounds it",
            NO_HMM,
        )
    if not allowed:
        return warning(
            f"couldn't be looked at: neither NVML nor {HMM_OFF} says whether it is on",
            "load the driver's module (nvidia-modprobe -u -c0), and run this again; a driver before 535 has no HMM",
        )
    return ok("it is turned off (uvm_disable_hmm)")


def mps(facts: Facts) -> Finding:
    running = [
        path.parent.name for path in facts.path("/proc").glob("[0-9]*/comm") if is_server(path.parent.name, facts)
    ]
    if not running and not has_server(str(facts.path(PIPES))):
        return ok("no MPS server runs")
    where = f"process {running[0]}" if running else PIPES
    return warning(
        f"an MPS server runs ({where}), which takes device memory for its clients outside of shares: a container that "
        "can reach it is refused, with --gpus each one",
        "end it (echo quit | nvidia-cuda-mps-control), or keep its folder out of containers",
    )


def is_server(process: str, facts: Facts) -> bool:
    return facts.read(f"/proc/{process}/comm") == MPS_SERVER
