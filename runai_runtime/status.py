"""runai-ctl status."""

from __future__ import annotations

import json

from runai_runtime.host import absolute, read_host
from runai_runtime.overview import as_values, look


def status(config: str, as_json: bool) -> str:
    """What to print of all that there is, on the host with the configuration CONFIG. Raises RefusalError."""
    overview = look(read_host(absolute(config)))
    if as_json:
        return json.dumps(as_values(overview), indent=1) + "\n"
    from runai_runtime.tables import status_lines
    from runai_runtime.terminal import as_text, width

    return as_text(status_lines(overview, width()))
