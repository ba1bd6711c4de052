"""A gateway that answers call after call as a test says, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """Status 0: the connection ends instead."""

    status: int
    body: Any = {}
    headers: dict[str, str] = {}


class Sent(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class ScriptedHttp:
    def __init__(self) -> None:
        self.script()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                gateway.sent.append(Sent(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                status, answer, headers = gateway._answers[min(len(gateway.sent), len(gateway._answers)) - 1]
                if status == 0:
                    self.close_connection = True
                    return
                content = json.dumps(answer).encode()
                self.send_response_only(status)
                for name, value in {"content-length": str(len(content)), "connection": "close", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def script(self, *answers: Answer) -> None:
        """From now on these, one a call, the last for all further ones."""
        self.sent: list[Sent] = []
        self._answers = answers

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
