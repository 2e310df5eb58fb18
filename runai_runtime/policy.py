"""What the host's configuration has to say about a container's share: the largest, the default, and what becomes of a
container that is given a GPU and asks for no share.
"""

from __future__ import annotations

from runai_runtime import spec as specs
from runai_runtime.errors import RefusalError, quoted
from runai_runtime.grant import MIB, mib
from runai_runtime.host import EVERYTHING, NO_SHARE, read_host
from runai_runtime.placement import Choice
from runai_runtime.request import EXAMPLES, MEMORY, Amount, Request
from runai_runtime.toolkit import visible_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runai_runtime.host import Host
    from runai_runtime.spec import Spec


def default_share(host: Host) -> Amount | None:
    """What a container gets that asks for a GPU and names no memory; None where the host has no such share."""
    if host.default_share == NO_SHARE:
        return None
    return Amount(f'"default_share" of {host.path}', host.default_share)


def request_for_given(configuration: str, spec: Spec, environment: dict[str, str]) -> Request | None:
    """What a container that asks for nothing is taken to ask for: None where it has no GPU, or is to be left alone.

    Raises RefusalError where it is given a GPU, and the host wants a share to be named for each.
    """
    minors = specs.device_minors(spec)
    if not minors and not specs.has_nvidia_hook(spec):
        return None
    host = read_host(configuration)
    if host.without_request == "leave" or not (minors or visible_devices(spec, environment)):
        return None
    share = default_share(host)
    if host.without_request == "default" and share is not None:
        return Request(share, share, None)
    raise RefusalError(
        f"the container is given a GPU and asks for no share of its memory, which {host.path} wants of each; set "
        f"{MEMORY} ({EXAMPLES})",
    )


def within_largest(host: Host, request: Request, choice: Choice) -> Choice:
    """CHOICE without the GPUs of which REQUEST is more than the host lets a container have, whatever asks for it, an
    image's ENV as well. Raises RefusalError where too few are left.
    """
    if host.largest_share == EVERYTHING:
        return choice
    largest = Amount(f'"largest_share" of {host.path}', host.largest_share)
    above = [
        gpu for gpu in choice.gpus if largest.of(gpu.total) < request.limit.of(gpu.total) // MIB * MIB <= gpu.total
    ]
    left = [gpu for gpu in choice.gpus if gpu not in above]
    if len(left) < choice.count:
        gpu = above[0]
        raise RefusalError(
            f"{request.limit.name} is {quoted(request.limit.text)}, {mib(request.limit.of(gpu.total))} MiB of GPU "
            f"{gpu.index}; a container gets {mib(largest.of(gpu.total))} MiB of it at most ({largest.name} is "
            f"{quoted(largest.text)}); ask for less",
        )
    return Choice(left, choice.count)
