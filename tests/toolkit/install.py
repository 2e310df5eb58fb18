"""The toolkit's stand-ins as programs in a folder, for one simulated GPU host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.docker.images import MULTIARCH
from tests.simgpu.host import SimHost
from tests.toolkit import cdi

TOP = Path(__file__).parents[2]
HOME = f"/usr/lib/{MULTIARCH}"

PROGRAM = """\
#!/usr/bin/python3 -IS
import sys

sys.path.append({top!r})
from tests.toolkit.{module} import main

main({arguments})
"""


def parts(simhost: SimHost) -> dict[str, list[str]]:
    """The nodes of each instance (MIG), by both of its names."""
    found = {}
    order = sorted(simhost.host.gpus, key=lambda gpu: gpu.bus)  # as NVML counts
    for part in simhost.host.instances:
        assert part.instance is not None
        nodes = [f"nvidia{simhost.host.minor_of(part.instance)}"]
        nodes += [f"nvidia-caps/nvidia-cap{minor}" for minor in simhost.host.cap_minors(part.instance)]
        found[f"{order.index(simhost.host.gpus[part.instance.gpu])}:{part.instance.place}"] = found[part.uuid] = nodes
    return found


class Toolkit:
    """FOLDER with nvidia-container-runtime-hook and nvidia-cdi-hook, and with more runtimes as runtime() makes them.

    The driver's libraries come to HOME_FOLDER of containers.
    """

    def __init__(self, folder: Path, simhost: SimHost, home: str = HOME, compat: str = "") -> None:
        self.folder = folder
        self.driver = {"lib": str(simhost.lib), "bin": str(simhost.bin), "dev": str(simhost.dev)}
        gpus = sorted(simhost.host.gpus, key=lambda gpu: gpu.bus)  # as NVML counts
        self.driver["uuids"] = " ".join(gpu.uuid for gpu in gpus)
        self.driver["nodes"] = " ".join(f"nvidia{gpu.minor}" for gpu in gpus)
        self.driver["parts"] = " ".join(f"{name}={','.join(nodes)}" for name, nodes in parts(simhost).items())
        self.cdi_hook = self._write("nvidia-cdi-hook", "cdi_hook")
        self.hook = self._write("nvidia-container-runtime-hook", "runtime_hook", self.driver, HOME)
        self.specification = cdi.specification(self.driver, home, str(self.cdi_hook), compat)

    def runtime(self, name: str, mode: str, *runtimes: str) -> Path:
        """NAME/nvidia-container-runtime."""
        config = {
            "mode": mode,
            "runtimes": list(runtimes),
            "driver": self.driver,
            "cdi": self.specification,
            "hook": str(self.hook),
        }
        return self._write(f"{name}/nvidia-container-runtime", "runtime", config)

    def _write(self, name: str, module: str, *arguments: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PROGRAM.format(top=str(TOP), module=module, arguments=", ".join(map(repr, arguments))))
        path.chmod(0o755)
        return path
