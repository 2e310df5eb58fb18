"""Docker: which one it is, whether it has our runtime, and how it gives GPUs to containers."""

from __future__ import annotations

import os

from runai_runtime.able import runtime_fault
from runai_runtime.doctor.driver import without_agent
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import Finding, Unknown, fault, of_refusal, ok, warning
from runai_runtime.errors import RefusalError
from runai_runtime.scan import low_level

SNAP = "/snap/bin/docker"
CLIENTS = ("/usr/local/bin/docker", "/usr/bin/docker")
NVIDIA_HOOKS = ("/usr/bin/nvidia-container-runtime-hook", "/usr/local/bin/nvidia-container-runtime-hook")
NVIDIACTL = "/dev/char/195:255"
CGROUPFS = '"exec-opts": ["native.cgroupdriver=cgroupfs"] into daemon.json'
RELOAD = "systemctl reload docker, which no container notices"


def snap(facts: Facts) -> Finding:
    if not facts.there(SNAP):
        return ok("docker is no snap")
    others = [path for path in CLIENTS if facts.there(path)]
    what = "this host has Ubuntu's snap of docker, whose engine sees neither our runtime nor the driver's files"
    if others:
        return warning(
            f"{what}, beside {others[0]}", "remove the snap (snap remove docker), or call the other by its path"
        )
    return fault(what, "install docker by packages of the system's or of docker.com, and remove the snap")


def engine(facts: Facts) -> Finding:
    try:
        said = facts.engine
    except Unknown as why:
        return fault(
            why.at_length(),
            "start docker (systemctl start docker); DOCKER_HOST names another engine than this host's own",
        )
    if "name=rootless" in str(said.get("SecurityOptions")):
        return fault(
            "docker's engine runs without root, and the hooks that keep a share need root",
            "use an engine that root runs (docker context use default)",
        )
    return ok(f"docker {said.get('ServerVersion')}, as root")


def has_runtime(facts: Facts) -> Finding:
    """Whether the engine that runs has our runtime: daemon.json is read at a start and a reload alone."""
    try:
        written = (facts.registered or {}).get("path")
    except RefusalError as refusal:
        return of_refusal(refusal)
    try:
        running = (facts.engine.get("Runtimes") or {}).get(facts.name, {}).get("path")
    except Unknown:
        if written:
            raise
        running = None
    if not running and not written:
        return fault(
            f"docker has no runtime {facts.name}, and {facts.daemon} names none",
            f"run runai-ctl configure, and {RELOAD}",
        )
    if not running:
        return fault(f"{facts.daemon} has the runtime {facts.name}, and the engine that runs hasn't read it", RELOAD)
    if written and written != running:
        return warning(f"the engine that runs has {running} as {facts.name}, and {facts.daemon} has {written}", RELOAD)
    return ok(f"docker has the runtime {facts.name}, {running}")


def program(facts: Facts) -> Finding:
    """The program that docker starts: a text whose first line names its interpreter (configure.PROGRAM)."""
    path = facts.registered_program()
    if not path:
        raise Unknown(f"docker has no runtime {facts.name}")
    again = "run runai-ctl configure"
    if not os.path.isfile(path):
        return fault(f"{path}, which docker starts as {facts.name}, isn't there", again)
    if not os.access(path, os.X_OK):
        return fault(f"{path}, which docker starts as {facts.name}, may not be executed", f"chmod 755 {path}")
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read(1 << 16).splitlines()
    interpreter = lines[0].removeprefix("#!").split()[:1] if lines else []
    if not interpreter or not os.access(interpreter[0], os.X_OK):
        return fault(f"{path} can't be started, its interpreter isn't there (was the installation moved?)", again)
    low = next((line.removeprefix("# runtime=") for line in lines if line.startswith("# runtime=")), "")
    if low != facts.host.runtime:
        return warning(
            f"{path} starts {low or 'another runtime'}, and the configuration has {facts.host.runtime}", again
        )
    return ok(f"{path}, over {low}")


def low_level_runtime(facts: Facts) -> Finding:
    runtimes = low_level(facts.host)
    for path in (facts.host.runtime, *runtimes):
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            return fault(
                f"the low-level runtime {path} can't be started", "install it, or runai-ctl configure --runtime PATH"
            )
    for path in runtimes:
        why = runtime_fault(path)
        if why:
            return without_agent(facts.host, why, "install runc 1.1 or later, or crun 0.19 or later")
    return ok(f"{', '.join(runtimes)} can hand system calls to an agent")


def plain_gpus(facts: Facts) -> Finding:
    """No fault: what people try first, and dockerd refuses before any runtime is started."""
    if has_toolkit(facts):
        return ok("NVIDIA's toolkit is there: docker run --gpus works with --runtime and without")
    return ok(
        "plain docker run --gpus doesn't work without NVIDIA's toolkit: runai-docker run --gpus with --gpu-memory does"
    )


def systemd_cgroups(facts: Facts) -> Finding:
    """When systemd is reloaded it writes the device rules of its scopes anew, from what runc told it: what NVIDIA's
    hook let in later isn't among them, nor what /dev/char has no link for
    (https://github.com/NVIDIA/nvidia-docker/issues/1730).
    """
    if facts.engine.get("CgroupDriver") != "systemd":
        return ok("docker's cgroups aren't systemd's")
    if facts.there("/dev/nvidiactl") and not facts.there(NVIDIACTL):
        return warning(
            f"{NVIDIACTL} isn't there, by which systemd lets the driver's nodes in: systemctl daemon-reload takes the "
            "GPU away from containers that run",
            f"make the links in /dev/char at each boot (nvidia-ctk system create-dev-char-symlinks), or put {CGROUPFS}",
        )
    if not has_toolkit(facts):
        return ok("docker's cgroups are systemd's, which lets the driver's nodes in")
    return warning(
        "NVIDIA's hook lets the devices of --gpus in behind systemd's back: systemctl daemon-reload takes the GPU away "
        "from containers that run",
        "leave --gpus out (RUNAI_GPUS gives GPUs without the hook), or use CDI (--device nvidia.com/gpu=0), or put "
        + CGROUPFS,
    )


def has_toolkit(facts: Facts) -> bool:
    return any(facts.there(path) for path in NVIDIA_HOOKS)
