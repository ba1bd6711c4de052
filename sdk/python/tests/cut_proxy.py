"""Stands between a client and the gateway, and cuts its connections."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class CutProxy:
    def __init__(self, target: str) -> None:
        url = urlsplit(target)
        self._target = (url.hostname, url.port)
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._is_severed = False
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends all connections without a word; new ones are taken."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                _end(end)

    def sever(self) -> None:
        """As `cut`, and new connections end at once until `restore`."""
        self._is_severed = True
        self.cut()

    def restore(self) -> None:
        self._is_severed = False

    def tried(self, count: int) -> None:
        """Waits until so many connections were made in all."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.connections >= count, 30), f"{self.connections} connections came"

    def close(self) -> None:
        _end(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_severed:
                _end(client)
            else:
                gateway = socket.create_connection(self._target)
                with self._lock:
                    self._pairs.add((client, gateway))
                for source, sink in ((client, gateway), (gateway, client)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()
            with self._arrived:
                self.connections += 1
                self._arrived.notify_all()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        _end(end)


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
