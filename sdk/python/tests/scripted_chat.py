"""A chat gateway that does on each socket what a test says."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Awaitable, Callable

import websockets

Frame = dict[str, Any]


class Socket:
    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def hear(self, kind: str) -> Frame:
        """The client's next frame, which must be of this type."""
        frame: Frame = json.loads(await self._socket.recv())
        assert frame["type"] == kind, frame
        return frame

    async def say(self, kind: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": kind, **fields}))

    async def open(self, **fields: Any) -> Frame:
        """Takes the client in; its `auth` frame."""
        auth = await self.hear("auth")
        agent = {"id": "a", "ticker": "MYAG", "name": "Mine", "service_price": "0.01"}
        await self.say("session", session_id="ses_1", agent=agent, credits_reserved="0.05", resumed="session_id" in auth, message_count=0, **fields)
        return auth

    async def tell(self, message: Frame, *deltas: str) -> None:
        """The whole answer and its bill."""
        for delta in deltas:
            await self.say("chunk", data=delta, id=message["id"])
        await self.say("done", order_id="o1", session_id="ses_1", output_hash="sha256:0", message_index=1, id=message["id"])
        await self.say("billing", order_id="o1", amount_charged="0.01", credits_remaining="9.99", credits_reserved="0.04", session_total="0.01")

    async def end(self, close_code: int, **error: Any) -> None:
        if error:
            await self.say("error", fatal=True, **error)
        await self._socket.close(close_code)

    async def part(self) -> None:
        """Takes the client's leave."""
        await self.hear("close")
        await self._socket.close(1000)


class ScriptedChat:
    """`scripts`: what happens on the first socket, the second, … Any further one is a failure."""

    def __init__(self, *scripts: Callable[[Socket], Awaitable[None]]) -> None:
        self._scripts = scripts
        self.sockets = 0
        self.failures: list[BaseException] = []

    async def __aenter__(self) -> ScriptedChat:
        self._server = await websockets.serve(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/v1"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        await self._server.wait_closed()
        if self.failures and error is None:
            raise self.failures[0]

    async def _serve(self, socket: Any) -> None:
        self.sockets += 1
        try:
            await self._scripts[self.sockets - 1](Socket(socket))
        except Exception as failure:
            self.failures.append(failure)
            raise
