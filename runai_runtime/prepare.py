"""Giving a container its share: request, grant, plan, and the edited config.json.

Everything fails closed: what can't be done as asked raises RefusalError, with nothing left behind.
"""

from __future__ import annotations

import json
import os

from runai_runtime import grant as grants
from runai_runtime import spec as specs
from runai_runtime.commandline import CommandLine
from runai_runtime.compat import describe, image_driver
from runai_runtime.edits import AddGuard, RemoveGuards
from runai_runtime.errors import RefusalError, log_line, quoted, reason
from runai_runtime.host import Host, read_host
from runai_runtime.hostlog import note
from runai_runtime.inventory import Inventory, read_inventory
from runai_runtime.ledger import Admission
from runai_runtime.mps import refuse_servers
from runai_runtime.placement import Choice
from runai_runtime.plan import OURS, make_plan, need, preloaded, search_folders
from runai_runtime.policy import default_share, request_for_given, within_largest
from runai_runtime.request import MEMORY, Request, read_request
from runai_runtime.toolkit import VISIBLE, visible_devices
from runai_runtime.userns import owner_of_root, refuse_not_runnable, refuse_out_of_reach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runai_runtime.agent import Agent
    from runai_runtime.cdi_edits import CdiEdits
    from runai_runtime.grant import Share
    from runai_runtime.inventory import Gpu
    from runai_runtime.request import Amount
    from runai_runtime.spec import Spec

MOST_GPUS = 16  # of a container: libvgpu/account_page.h, ACCOUNT_GPUS
NOT_WANTED = 'the configuration has "enforcement": "interposer"'


def prepare(line: CommandLine, configuration: str, path: str, text: bytes, runtime: str) -> None:
    """Edit the config.json at PATH, which reads TEXT, if the container asks for a share. RUNTIME is what runs it then:
    nothing edits the container any more.
    """
    spec = parse(path, text)
    environment = specs.environment_of(spec)
    request = request_of(line, configuration, spec, environment)
    if request is None:
        take_guards_out(path, spec)
        return
    refuse_shared_root(spec)
    host = read_host(configuration)
    refuse_unbounded(spec, host)
    refuse_servers(spec, environment)
    inventory = read_inventory(host)
    given = given_gpus(spec, inventory, environment)
    choice = within_largest(host, request, choose(given, request, inventory))
    folder = grants.directory(host, line.container)
    rootfs, cwd, program = specs.rootfs(spec, line.bundle), specs.cwd(spec), specs.program(spec)
    search, preload = search_folders(environment, cwd, program), preloaded(environment, cwd, program)
    image = image_driver(host, inventory, spec, rootfs, search)
    search += specs.mounted_beside(spec, OURS.values())
    owner = owner_of_root(spec)
    root = line.root or grants.default_root(runtime)
    log = os.path.abspath(line.log) if line.log else ""
    libcuda = describe(image, inventory)
    with Admission(host, line.container, request, choice) as shares:
        gpus = [share.gpu for share in shares]
        cdi, why_not_cdi = (None, "") if given else cdi_edits(inventory, gpus)
        if cdi:
            cdi.apply(spec)
            environment = specs.environment_of(spec)
            refuse_servers(spec, environment)
            search, preload = search_folders(environment, cwd, program), preloaded(environment, cwd, program)
            search += specs.mounted_beside(spec, OURS.values())
        plan = make_plan(host, inventory, gpus, folder, rootfs, environment, search, preload, image)
        for edit in (RemoveGuards(), *plan.edits):
            edit.apply(spec)
        agent, why = enforcer_of(host, inventory, runtime, shares, folder, spec)
        if owner:
            code = plan.sources("real", "ours", "library", "program")
            refuse_out_of_reach(owner, [host.hook, host.state], code + plan.sources("device"))
            refuse_not_runnable(code)
        enforcement = agent.description() if agent else {"by": "interposer", "why": why}
        grants.write_grant(
            *(host, line.container, os.path.abspath(root), shares, plan.text(), libcuda, log, owner, enforcement),
            *(agent, "" if given else "cdi" if cdi else "driver", cdi.mount_points(rootfs) if cdi else ()),
            request.describe(),
        )
    try:
        if agent:
            agent.start()
        said = f"libvgpu alone keeps the share of the GPU: {why}" if why else "an agent keeps the share"
        log_line(log, "info", said)
        note(host.log, "info", said, line.container)
        if why_not_cdi:
            said = f"the GPUs are put in by a look at the driver, not by the host's CDI specification: {why_not_cdi}"
            log_line(log, "info", said)
            note(host.log, "info", said, line.container)
        replace(path, json.dumps(spec).encode())
    except BaseException:
        grants.remove_grant(folder)
        raise


def cdi_edits(inventory: Inventory, gpus: list[Gpu]) -> tuple[CdiEdits | None, str]:
    """What puts GPUS in as the host's CDI specification has it; our plan goes over that. None without one that can, and
    why where there is one.
    """
    if not inventory.cdi.get("files"):
        return None, ""
    from runai_runtime.cdi_edits import UnusableError, edits_for

    try:
        return edits_for(inventory, gpus), ""
    except UnusableError as error:
        return None, str(error)


def enforcer_of(
    host: Host, inventory: Inventory, runtime: str, shares: list[Share], folder: str, spec: Spec
) -> tuple[Agent | None, str]:
    """The agent that is going to keep the share, for which SPEC is edited; or None, and why libvgpu alone does. Raises
    RefusalError where the configuration requires an agent and there can be none.
    """
    if host.enforcement == "interposer":
        return None, NOT_WANTED
    from runai_runtime.agent import Agent, host_fault, instance_fault, refusal_of, socket_fault

    required = host.enforcement == "agent"
    why = host_fault(inventory, runtime) or instance_fault(shares) or socket_fault(folder)
    if why and required:
        raise refusal_of(host, why)
    if why:
        return None, why
    agent = Agent(host, inventory, runtime, shares, folder)
    try:
        for edit in agent.edits():
            edit.apply(spec)
    except RefusalError as refusal:
        if required:
            raise
        return None, str(refusal)
    return agent, ""


def guard(line: CommandLine, configuration: str, path: str, text: bytes, folder: str) -> None:
    """See to it that a container that asks for a share can't run before prepare() has seen it: NVIDIA's runtime edits
    it first, and then starts the program in FOLDER (docs/architecture.md, "The second stage").
    """
    spec = parse(path, text)
    asked = request_of(line, configuration, spec, specs.environment_of(spec)) is not None
    host = read_host(configuration)
    if not asked and host.without_request == "leave":
        return
    for stage in ("prestart", "createContainer"):
        AddGuard(stage, need(host.hook), folder).apply(spec)
    replace(path, json.dumps(spec).encode())


def take_guards_out(path: str, spec: Spec) -> None:
    """Of a container that turned out to be given no GPU."""
    before = json.dumps(spec)
    RemoveGuards().apply(spec)
    after = json.dumps(spec)
    if after != before:
        replace(path, after.encode())


def request_of(line: CommandLine, configuration: str, spec: Spec, environment: dict[str, str]) -> Request | None:
    """What the container asks for, or the host's configuration has it ask for."""

    def default() -> Amount | None:
        return default_share(read_host(configuration))

    request = read_request(specs.annotations_of(spec), environment, default)
    request = request or request_for_given(configuration, spec, environment)
    if request is not None and line.command == "restore":
        raise RefusalError("a container with a share of a GPU can't be restored; start it anew")
    return request


def parse(path: str, text: bytes) -> Spec:
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusalError(f"{path} is damaged ({error}); see who made the bundle") from error
    if not isinstance(spec, dict):
        raise RefusalError(f"{path} is damaged (it is not a JSON object); see who made the bundle")
    if specs.odd_key(spec):
        raise RefusalError(f"{path} has the key {quoted(specs.odd_key(spec))}, which runtimes read in different ways")
    return spec


def refuse_shared_root(spec: Spec) -> None:
    propagation = specs.section(spec, "linux").get("rootfsPropagation")
    if propagation in ("shared", "rshared"):
        raise RefusalError(
            "the container's root file system is shared with the host (docker does this for a volume with :shared), so "
            "what is mounted for its share would appear on the host and stay; use :slave or :private for its volumes",
        )


def refuse_unbounded(spec: Spec, host: Host) -> None:
    """What a share can't hold against."""
    if specs.may_mount(spec) and not host.allow_sys_admin:
        raise RefusalError(
            "the container has CAP_SYS_ADMIN (--privileged, --cap-add), with which it can take away what keeps its "
            'share and change the driver\'s files on the host; run it without, or set "allow_sys_admin" to true in '
            f"{host.path}",
        )


def given_gpus(spec: Spec, inventory: Inventory, environment: dict[str, str]) -> list[Gpu]:
    """The GPUs that the spec grants, by device nodes and by NVIDIA's hook."""
    minors = specs.device_minors(spec)
    given = grants.by_minor(inventory, minors, specs.cap_minors(spec, inventory.caps_major)) if minors else []
    visible = visible_devices(spec, environment) if specs.has_nvidia_hook(spec) else ""
    if visible:
        given += grants.by_wish(inventory, visible, VISIBLE)
    return list(dict.fromkeys(given))


def choose(given: list[Gpu], request: Request, inventory: Inventory) -> Choice:
    """The GPUs that the container is GIVEN; where there are none, those that it names; else as many as it wishes for,
    of all.
    """
    gpus = given
    if not gpus:
        count = grants.count_of(inventory, request.gpus)
        if count:
            return Choice(inventory.gpus, few_enough(count))
        gpus = list(dict.fromkeys(grants.by_wish(inventory, request.gpus or "")))
    return Choice(gpus, few_enough(len(gpus)))


def few_enough(count: int) -> int:
    if count > MOST_GPUS:
        raise RefusalError(
            f"the container is given {count} GPUs; shares are kept on {MOST_GPUS} at most, so name fewer"
        )
    return count


def replace(path: str, text: bytes) -> None:
    """TEXT instead of what the file at PATH holds, with the same owner and mode, in one step."""
    temporary = f"{path}.runai-{os.getpid()}"
    status = os.stat(path)
    try:
        with open(temporary, "xb") as file:
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise RefusalError(f"{path} can't be rewritten: {reason(error)}; see the file system it lies on") from error


def refuse_checkpoint(line: CommandLine, configuration: str) -> None:
    host = read_host(configuration)
    if os.path.isdir(grants.directory(host, line.container)):
        raise RefusalError(
            f"the container {quoted(line.container)} has a share of a GPU ({MEMORY}) and can't be checkpointed: the "
            "GPU's memory would not be in the checkpoint; stop it instead",
        )
