"""runai-ctl status."""

from __future__ import annotations

import json
import os
import sys

from runai_runtime.host import read_host
from runai_runtime.overview import as_values, look


def print_status(config: str, as_json: bool) -> None:
    """All that there is, from the host with the configuration CONFIG. Raises RefusalError."""
    overview = look(read_host(os.path.join(os.getcwd(), config)))
    if as_json:
        sys.stdout.write(json.dumps(as_values(overview), indent=1) + "\n")
        return
    from runai_runtime.tables import status_lines
    from runai_runtime.terminal import print_lines, width

    print_lines(status_lines(overview, width()))
