"""An engine that only writes down what a docker client asks it to create."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any

REFUSED = "written down"


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client ends once it has its answer."""


class Recorder:
    """A context manager. API: the version of the engine's API that it says it has, such as 1.45."""

    def __init__(self, folder: Path, api: str) -> None:
        self.socket = folder / "e.sock"
        self.created: list[tuple[str, Any]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(200, b"")

            def do_GET(self) -> None:
                self.answer(200, b"{}")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                recorder.created.append((self.path, json.loads(body or b"null")))
                self.answer(500, json.dumps({"message": REFUSED}).encode())

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Api-Version", api)
                self.send_header("Ostype", "linux")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "client"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = Server(str(self.socket), Handler)

    def __enter__(self) -> Recorder:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.socket.parent)}

    def asked(self, command: list[str]) -> tuple[str, Any]:
        """What COMMAND, a docker client, asks to create: the path with its query, and the body."""
        self.created.clear()
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert REFUSED in done.stderr, done.stderr
        return self.created[-1]
