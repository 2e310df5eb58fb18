"""The kernel: what the agent needs of it, and what else may be in the way."""

from __future__ import annotations

from runai_runtime.able import ACTIONS, PTRACE_SCOPE, kernel_fault, ptrace_fault
from runai_runtime.doctor.driver import without_agent
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import Finding, fault, ok, warning
from runai_runtime.scan import low_level

RELEASE = "/proc/sys/kernel/osrelease"
SELINUX = "/sys/fs/selinux/enforce"
APPARMOR = "/sys/module/apparmor/parameters/enabled"
CGROUPS = "/sys/fs/cgroup"


def notifications(facts: Facts) -> Finding:
    release = facts.read(RELEASE)
    why = kernel_fault(release, str(facts.path(ACTIONS)))
    if why:
        return without_agent(facts.host, why, "run Linux 5.9 or later with CONFIG_SECCOMP_FILTER, not in a sandbox")
    return ok(f"Linux {release}, with seccomp's user notifications")


def ptrace(facts: Facts) -> Finding:
    if ptrace_fault(str(facts.path(PTRACE_SCOPE))):
        why = f"{PTRACE_SCOPE} is 3, with which nobody may read another's memory, not the agent either"
        return without_agent(facts.host, why, "set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d, and boot")
    scope = facts.read(PTRACE_SCOPE)
    return ok(f"the agent may read its container's memory (scope {scope})" if scope else "this kernel has no Yama")


def cgroups(facts: Facts) -> Finding:
    if facts.there(f"{CGROUPS}/cgroup.controllers"):
        return ok("version 2")
    if not facts.there(f"{CGROUPS}/devices"):
        return fault(f"no cgroups are mounted at {CGROUPS}", "mount them; systemd and docker's packages do that")
    crun = [runtime for runtime in low_level(facts.host) if "crun" in runtime]
    if crun and facts.there(f"{CGROUPS}/unified"):
        return fault(
            f"version 1 with a part of version 2, which {crun[0]} refuses to run on",
            "boot with systemd.unified_cgroup_hierarchy=1, or take runc",
        )
    return ok("version 1")


def modules(facts: Facts) -> Finding:
    """SELinux and AppArmor."""
    if facts.read(SELINUX) == "1":
        return warning(
            "SELinux enforces its rules, and runai-runtime wasn't tried under it",
            "where a container with a share fails, see ausearch -m avc -ts recent; --security-opt label=disable for "
            "that container tells whether SELinux is why",
        )
    if facts.read(APPARMOR) == "Y":
        return ok("AppArmor is on; docker's profile bounds the container, not the hooks and the agent outside of it")
    return ok("neither SELinux nor AppArmor enforces rules")
