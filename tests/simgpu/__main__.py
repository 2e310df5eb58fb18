"""python -m tests.simgpu FOLDER [--config FILE]: a simulated GPU host in the foreground, until SIGTERM."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from .host import SimHost


def main() -> int:
    """Print the folder when the host is up; end cleanly on SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.simgpu", description="a simulated GPU host")
    parser.add_argument("folder", type=Path, help="gets lib/, bin/ and dev/")
    parser.add_argument("--config", type=Path, help="JSON; default: one RTX 2080 Ti of 10989 MiB")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    try:
        with SimHost(options.folder, json.loads(options.config.read_text()) if options.config else None) as host:
            print(host.folder, flush=True)
            while True:
                signal.pause()
    except (RuntimeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
