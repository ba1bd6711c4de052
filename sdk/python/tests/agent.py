"""An agent of a test: an HTTP server on loopback that answers as it is told and
keeps what it was asked."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, NamedTuple


class Request(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Agent:
    def __init__(self, behave: Callable[[BaseHTTPRequestHandler, Request], None]) -> None:
        self.requests: list[Request] = []
        self.behave = behave
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                request = Request({name.lower(): value for name, value in self.headers.items()}, _body(self))
                agent.requests.append(request)
                agent.behave(self, request)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """The gateway hangs up on turns that are cancelled."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/run"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answers(text: str, status: int = 200, content_type: str = "text/plain") -> Callable[[BaseHTTPRequestHandler, Request], None]:
    def behave(handler: BaseHTTPRequestHandler, _: Request) -> None:
        body = text.encode()
        handler.send_response(status)
        handler.send_header("content-type", content_type)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


class Say:
    """Streams its parts as server-sent events, and waits at each `Hold`."""

    def __init__(self, *parts: str | Hold) -> None:
        self._parts = parts

    def __call__(self, handler: BaseHTTPRequestHandler, _: Request) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for part in self._parts:
            if isinstance(part, Hold):
                part.pass_by()
            else:
                self._write(handler, f"data: {json.dumps({'delta': part})}\n\n")
        self._write(handler, "data: [DONE]\n\n")
        handler.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def _write(handler: BaseHTTPRequestHandler, text: str) -> None:
        body = text.encode()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        handler.wfile.flush()


class Hold:
    """Where an answer waits: `reached` tells that it is there, `release` lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def pass_by(self) -> None:
        self._reached.set()
        assert self._released.wait(30)

    def reached(self) -> None:
        assert self._reached.wait(30), "the agent did not get there"

    def release(self) -> None:
        self._released.set()


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("transfer-encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("content-length", 0)))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body
