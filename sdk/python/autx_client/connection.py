"""One WebSocket of a chat: authenticates in its first frame, hands over every
frame after it, and tells at its end what the gateway gave as the reason. It knows
nothing of turns and never dials twice. The library below answers pings, and takes
a gateway that is silent for 40 s for gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, AsyncIterator, Mapping

import websockets
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException

from .errors import ChatError

Frame = Mapping[str, Any]

# Its debug log would show the key.
_log = logging.getLogger("autx_client.socket")
_log.setLevel(logging.INFO)

#: After these a client comes back by itself, after any other it must not. 1006: the connection broke.
RECONNECT_CODES = frozenset({1001, 1006, 1011, 1013, 4408, 4429, 4503})
LOST = 1006
IDLE = 4408

#: What a close code says where no error frame came before it.
_REASONS = {
    1001: "server_shutdown",
    1006: "connection_lost",
    1009: "prompt_too_large",
    1011: "internal_error",
    1013: "slow_consumer",
    4400: "invalid_frame",
    4401: "auth_failed",
    4402: "insufficient_credits",
    4403: "forbidden_scope",
    4404: "agent_not_found",
    4408: "idle_timeout",
    4409: "session_replaced",
    4410: "session_closed",
    4429: "rate_limited",
    4503: "agent_paused",
}

#: To be connected, and then to be authenticated.
_OPEN_S = 10.0
_PING_S = 20.0
_CLOSE_S = 2.0
#: Of one frame; an answer has at most 1 Mi characters, and comes in parts.
_FRAME_BYTES_MAX = 16 * 1024 * 1024


class Connection:
    def __init__(self, socket: Any) -> None:
        self._socket = socket

    @classmethod
    async def open(cls, url: str, token: str, session_id: str | None) -> tuple[Connection, Frame]:
        """The connection and its `session` frame. A refusal is a `ChatError` whose `close_code` says whether to come back."""
        connection = cls(await _dial(url))
        try:
            await connection.send({"type": "auth", "token": token, **({} if session_id is None else {"session_id": session_id})})
            frame = await asyncio.wait_for(connection._first(), _OPEN_S)
        except asyncio.TimeoutError:
            await connection.close()
            raise ChatError("connection_failed", "The gateway did not answer in time", fatal=True, close_code=LOST) from None
        except BaseException:
            await connection.close()
            raise
        return connection, frame

    async def frames(self) -> AsyncIterator[Frame]:
        """Ends only by a `ChatError`, which tells why the socket ended."""
        fatal: Frame = {}
        while True:
            try:
                frame = json.loads(await self._socket.recv())
            except ConnectionClosed as closed:
                raise _reason(closed, fatal) from None
            if frame["type"] == "error" and frame.get("fatal"):
                fatal = frame
            else:
                yield frame

    async def send(self, frame: Frame) -> None:
        """What a socket that has ended does not take is lost: `frames` tells of its end."""
        with suppress(ConnectionClosed):
            await self._socket.send(json.dumps(frame))

    async def close(self) -> None:
        await self._socket.close()

    async def _first(self) -> Frame:
        async for frame in self.frames():
            if frame["type"] == "session":
                return frame
        raise AssertionError("frames never ends without an error")


async def _dial(url: str) -> Any:
    try:
        return await websockets.connect(
            url,
            open_timeout=_OPEN_S,
            ping_interval=_PING_S,
            ping_timeout=_PING_S,
            close_timeout=_CLOSE_S,
            max_size=_FRAME_BYTES_MAX,
            compression=None,
            logger=_log,
        )
    except InvalidURI as error:
        raise ChatError("connection_failed", str(error), fatal=True) from error
    except InvalidHandshake as error:
        status = _status(error)
        is_passing = status is None or status == 429 or status >= 500
        raise ChatError("connection_failed", f"The gateway refused the socket: {error}", fatal=True, close_code=LOST if is_passing else None) from error
    except (OSError, EOFError, asyncio.TimeoutError, WebSocketException) as error:
        detail = str(error) or type(error).__name__
        raise ChatError("connection_failed", f"The gateway can't be reached: {detail}", fatal=True, close_code=LOST) from error


def _status(error: InvalidHandshake) -> int | None:
    """Where it is depends on the library's version."""
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _reason(closed: ConnectionClosed, fatal: Frame) -> ChatError:
    code = LOST if closed.rcvd is None else closed.rcvd.code
    reason = "" if closed.rcvd is None else closed.rcvd.reason
    return ChatError(
        fatal.get("code") or _REASONS.get(code, "connection_closed"),
        fatal.get("detail") or reason or f"The connection ended with code {code}",
        fatal=True,
        close_code=code,
        facts=fatal,
    )
