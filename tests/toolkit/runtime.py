"""nvidia-container-runtime: edits a container and becomes a low-level runtime, found by name in PATH."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.toolkit import cdi
from tests.toolkit.runtime_hook import visible


def main(config: dict[str, Any]) -> None:
    """CONFIG: "mode" (cdi or legacy), "runtimes" (names, or a path, which PATH then has no say in), "driver" (the
    host's folders), "cdi" (a specification), "hook" (nvidia-container-runtime-hook).
    """
    runtime = next(path for path in map(shutil.which, config["runtimes"]) if path)
    if "create" in sys.argv:
        bundle = sys.argv[sys.argv.index("--bundle") + 1]
        path = Path(bundle, "config.json")
        spec = json.loads(path.read_text())
        if config["mode"] == "cdi":
            inject(spec, config)
        else:
            add_hooks(spec, config)
        path.write_text(json.dumps(spec))
    os.execv(runtime, [runtime, *sys.argv[1:]])


def inject(spec: dict[str, Any], config: dict[str, Any]) -> None:
    """The GPUs' nodes, the driver and its hooks, all in the spec. A hook of --gpus is taken out: it isn't needed."""
    hooks = spec.get("hooks", {})
    hooks["prestart"] = [
        one for one in hooks.get("prestart", []) if Path(one["path"]).name != Path(config["hook"]).name
    ]
    nodes = visible(spec, config["driver"])
    if nodes is not None:
        known = config["driver"]["nodes"].split()
        cdi.apply(config["cdi"], [str(known.index(node)) for node in nodes], spec)


def add_hooks(spec: dict[str, Any], config: dict[str, Any]) -> None:
    """The prestart hook, and what makes the loader see an image's own driver."""
    hooks = spec.setdefault("hooks", {})
    prestart = hooks.setdefault("prestart", [])
    if not any(Path(one["path"]).name == Path(config["hook"]).name for one in prestart):
        prestart.append({"path": config["hook"], "args": [Path(config["hook"]).name, "prestart"]})
    if visible(spec, config["driver"]) is not None:
        added = [one for one in config["cdi"]["containerEdits"]["hooks"] if "create-symlinks" not in one["args"]]
        hooks.setdefault("createContainer", []).extend({key: one[key] for key in ("path", "args")} for one in added)
