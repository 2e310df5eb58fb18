"""The share of a container that runs, changed: its agent is told, and then the files that say what the share is.

Not for the hot path. With the interposer alone there is nobody to tell: each process has read its share already.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from runai_runtime import grant as grants
from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.grant import Share
from runai_runtime.host import Host
from runai_runtime.inventory import read_inventory
from runai_runtime.ledger import Ledger, Lock, read_ledger
from runai_runtime.placement import NoRoomError
from runai_runtime.placement import describe as describe_free
from runai_runtime.request import Amount, Request

NAME = "the new share"
MOST_NAMED = 4  # of the containers that hold the rest, in a refusal
SECONDS = 5  # an agent answers in well under a millisecond; one that doesn't in this time is stopped, or the host is


def set_share(host: Host, container: str, text: str) -> list[int]:
    """Give CONTAINER (its full id) the share TEXT, written as RUNAI_GPU_MEMORY is, on each of its GPUs.

    Answers what it holds on each then, in bytes, in the order of its `limits`: where that is more than the share,
    nothing is taken away, and nothing let in until enough was given back.

    Only root can. Raises RefusalError, with the share as it was, where it can't be changed.
    """
    folder = grants.directory(host, container)
    amount = Amount(NAME, text)
    with alone(host), opened(folder, container) as state:
        grant = read_grant(folder, container)
        refuse_without_agent(host, container, grant)
        before = [gpu["limit"] for gpu in grant["gpus"]]
        shares = shares_of(host, amount, grant)
        after = [share.limit for share in shares]
        limits = read_limits(folder)
        admit(host, folder, grant, shares)
        try:
            used = [tell(state, container, gpu, size) for gpu, size in enumerate(after)]
            write_limits(folder, with_sizes(limits, after))
            replace_grant(host, folder, grant | changed(grant, text, shares))
        except BaseException as error:
            put_back(state, folder, before, limits)
            with suppress(OSError):
                replace_grant(host, folder, grant)
            if not isinstance(error, OSError):
                raise
            raise unwritable(folder, error) from error
    return used


def admit(host: Host, folder: str, grant: dict[str, Any], shares: list[Share]) -> None:
    """See that SHARES fit beside the others' and have GRANT hold room for them. Raises NoRoomError where they don't.

    Until all is done it holds room for what was as well, so the ledger isn't locked while an agent is asked: whatever
    dies in between, nobody gets what its container may still take.
    """
    with Lock(host):
        ledger = read_ledger(host, os.path.basename(folder))
        for share in shares:
            if ledger.takes(share) > ledger.free(share.gpu):
                raise NoRoomError(refusal(ledger, share), may_come=True)
        both = [larger(gpu, grants.describe(share)) for gpu, share in zip(grant["gpus"], shares, strict=True)]
        try:
            replace_grant(host, folder, grant | {"gpus": both})
        except OSError as error:
            raise unwritable(folder, error) from error


def changed(grant: dict[str, Any], text: str, shares: list[Share]) -> dict[str, Any]:
    """What of GRANT is new with SHARES, which TEXT asked for."""
    request = grant.get("request", {}) | {"guarantee": text, "limit": text}
    return {"gpus": [grants.describe(share) for share in shares], "request": request}


def unwritable(folder: str, error: OSError) -> RefusalError:
    return RefusalError(
        f"the share of {os.path.basename(folder)} is as it was, since {folder} can't be written: {reason(error)}; see "
        "whether the container still runs, and the file system that this lies on"
    )


def larger(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    old = {"room": old["limit"]} | old
    return new | {key: max(old[key], new[key]) for key in ("guarantee", "limit", "room")}


def refusal(ledger: Ledger, share: Share) -> str:
    return (
        f"{describe_free(share.gpu, ledger, MOST_NAMED)}; {NAME} is {grants.mib(ledger.takes(share))} MiB; ask for less"
    )


@contextmanager
def alone(host: Host) -> Iterator[None]:
    """One change at a time on a host: agent and files say the same afterwards."""
    try:
        folder = os.open(host.state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RefusalError(f"the state folder {host.state} can't be read: {reason(error)}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def opened(folder: str, container: str) -> Iterator[int]:
    """FOLDER, for as long as this takes: the path of a socket in it may be longer than a socket's path can be."""
    try:
        state = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise no_grant(container) from error
    try:
        yield state
    finally:
        os.close(state)


def no_grant(container: str) -> RefusalError:
    return RefusalError(f"no container {quoted(container)} with a share of a GPU is here; give the whole id of one")


def read_grant(folder: str, container: str) -> dict[str, Any]:
    if not grants.is_alive(folder):
        raise no_grant(container)
    with open(os.path.join(folder, "grant.json"), "rb") as file:
        grant: dict[str, Any] = json.loads(file.read())
    if not grants.is_known(grant):
        raise RefusalError(
            f"the grant of {container} is of a version of runai-runtime that this one doesn't know, so its share stays "
            "as it is; use the runai-runtime that it was started with, or start it anew"
        )
    return grant


def refuse_without_agent(host: Host, container: str, grant: dict[str, Any]) -> None:
    enforcement = grant.get("enforcement", {})
    if enforcement.get("by") != "agent":
        raise RefusalError(
            f"the share of {container} can't be changed while it runs: this needs an agent, and it has none "
            f"({enforcement.get('why', 'nothing says why')}); see to that and start the container anew"
        )


def shares_of(host: Host, amount: Amount, grant: dict[str, Any]) -> list[Share]:
    """AMOUNT on each GPU of GRANT, as for a container that starts now."""
    known = {gpu.uuid: gpu for gpu in read_inventory(host).gpus}
    gone = [gpu["uuid"] for gpu in grant["gpus"] if gpu["uuid"] not in known]
    if gone:
        raise RefusalError(f"the container's GPU {gone[0]} is no longer among this host's; see nvidia-smi -L")
    request = Request(amount, amount, None)
    return grants.shares_of(request, [known[gpu["uuid"]] for gpu in grant["gpus"]])


def tell(state: int, container: str, gpu: int, size: int) -> int:
    """Have the agent bound GPU (its place in `limits`) at SIZE bytes; the bytes that are held of it then."""
    try:
        answer = ask(state, f"share {gpu} {size}\n")
    except (TimeoutError, BlockingIOError) as error:  # the latter: others fill the queue of one that is stopped
        raise RefusalError(
            f"the agent of {container} didn't answer within {SECONDS} seconds; see whether it is stopped, or start the "
            "container anew"
        ) from error
    except OSError as error:
        raise RefusalError(
            f"the agent of {container} is gone, so the container gets no more memory of a GPU; start it anew"
        ) from error
    said = re.fullmatch(r"ok (\d+)\n", answer)
    if said is None:
        raise RefusalError(
            f"the agent of {container} answered {quoted(answer.strip())}, as one of another version does; start "
            "the container anew"
        )
    return int(said[1])


def ask(state: int, request: str) -> str:
    """The agent's answer, a line: it closes after one request. Raises OSError where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(SECONDS)
        agent.connect(f"/proc/self/fd/{state}/control")
        agent.sendall(request.encode())
        answer = agent.recv(256)
    if not answer:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    return answer.decode("ascii", "replace")


def put_back(state: int, folder: str, before: list[int], limits: str) -> None:
    """As it was, as far as there is somebody to tell. An agent that is only slow reads both requests, this one last."""
    with suppress(OSError):
        write_limits(folder, limits)
    for gpu, size in enumerate(before):
        with suppress(OSError):
            ask(state, f"share {gpu} {size}\n")


def read_limits(folder: str) -> str:
    with open(os.path.join(folder, "limits"), encoding="ascii") as file:
        return file.read()


def with_sizes(limits: str, after: list[int]) -> str:
    """LIMITS with other bytes, no shorter than before: padded with zeroes, which change no number."""
    lines = [line.split(" ") for line in limits.splitlines()]
    return "".join(
        f"{uuid} {str(size).zfill(len(old))} {context}\n"
        for (uuid, old, context), size in zip(lines, after, strict=True)
    )


def write_limits(folder: str, text: str) -> None:
    """In place: the file is mounted into the container, where a new file of that name would never be seen.

    In one write, so that a process that starts meanwhile reads the old or the new.
    """
    file = os.open(os.path.join(folder, "limits"), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(file, text.encode("ascii"), 0)
        os.ftruncate(file, len(text))
    finally:
        os.close(file)


def replace_grant(host: Host, folder: str, grant: dict[str, Any]) -> None:
    """By a new file: who reads half a grant takes its container for gone. It is made where the shim makes grants, so
    what is left after a crash is swept up.
    """
    unfinished = os.path.join(host.state, f".{os.getpid()}")
    grants.remove_grant(unfinished)
    os.mkdir(unfinished, 0o700)
    try:
        grants.write(unfinished, "grant.json", json.dumps(grant, indent=1) + "\n")
        os.rename(os.path.join(unfinished, "grant.json"), os.path.join(folder, "grant.json"))
    finally:
        grants.remove_grant(unfinished)
