"""--gpu-memory and its kin, as what a container asks of runai-runtime."""

from __future__ import annotations

from runai_runtime.docker.gpus import Gpus
from runai_runtime.errors import RefusalError, quoted
from runai_runtime.request import GPUS, GUARANTEE, LIMIT, MEMORY, Amount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from runai_runtime.docker.words import Option

RUNTIME = "runai"
VARIABLES = {"--gpu-memory": MEMORY, "--gpu-memory-request": GUARANTEE, "--gpu-memory-limit": LIMIT}


def with_request(options: list[Option], known: Mapping[str, bool]) -> list[str]:
    """The words of OPTIONS, of docker run or create, with docker's own instead of ours. KNOWN are docker's options.
    Raises RefusalError for what can't be asked for.
    """
    last = {option.name: option.value or "" for option in options if option.name}
    memory = {name: last[name] for name in VARIABLES if name in last}
    if not memory:
        return [word for option in options for word in option.words]
    refuse(memory, last.get("--runtime", RUNTIME))
    request = {VARIABLES[name]: value for name, value in memory.items()}
    environment = {}
    if "--gpus" in last:
        if sum(option.name == "--gpus" for option in options) > 1:
            raise RefusalError("--gpus is there more than once; name all GPUs in one")
        gpus = Gpus(last["--gpus"])
        request[GPUS] = gpus.wish
        environment = {"NVIDIA_DRIVER_CAPABILITIES": gpus.capabilities} if gpus.capabilities else {}
    ours = (*VARIABLES, "--gpus")
    kept = [word for option in options if option.name not in ours for word in option.words]
    # No image can set an annotation, and it doesn't show in the container.
    way = "--annotation" if "--annotation" in known else "--env"
    runtime = [] if "--runtime" in last else [f"--runtime={RUNTIME}"]
    added = [f"{way}={name}={value}" for name, value in request.items()]
    return [*kept, *runtime, *added, *(f"--env={name}={value}" for name, value in environment.items())]


def refuse(memory: dict[str, str], runtime: str) -> None:
    for name, value in memory.items():
        Amount(name, value)
    others = [name for name in memory if name != "--gpu-memory"]
    if "--gpu-memory" in memory and others:
        raise RefusalError(
            f"--gpu-memory and {others[0]} are both there; give --gpu-memory, or --gpu-memory-request with "
            "--gpu-memory-limit",
        )
    if runtime != RUNTIME:
        raise RefusalError(
            f"--runtime is {quoted(runtime)}, which holds no share of a GPU; leave it out, or say --runtime={RUNTIME}",
        )
