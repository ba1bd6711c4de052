"""A chat with one agent: a session at the gateway that lives on while sockets
come and go.

Overview. Entering it dials and authenticates, leaving it closes it. A task reads
the socket all the time. One turn runs at a time: sending the next message cancels
one that has not ended.

    ready ──socket ends──▶ waiting ──▶ resuming ──▶ ready
      └──── any other end ────┴───────────┴───────▶ ended

Guarantee. When the socket ends with a code that asks for it (1001, 1006, 1011,
1013, 4408, 4429, 4503) the session is resumed by itself for as long as the gateway
keeps it, 120 s, with full jitter between tries and never before the gateway's own
`retry_after`. Then the running answer goes on, or its message is sent again with
its id: what had finished is repeated, never charged twice. After any other code
nothing is tried again. A session that is idle for long (4408) is resumed when
there is something to say.

Failure. What ends the session fails its running turn and every later one with the
same `ChatError`. A session that can't be opened at all gives up after
`max_retries` further tries. A refusal that is not fatal fails its turn alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Awaitable, Callable
from urllib.parse import quote

from .backoff import backoff, reconnect
from .connection import IDLE, RECONNECT_CODES, Connection, Frame
from .errors import ChatError
from .loop_thread import LoopThread
from .retries import Settings
from .turn import Turn

_log = logging.getLogger("autx_client")

#: For so long the gateway keeps a session that has no socket.
RESUME_S = 120.0
#: After that a connection is taken for a good one, though nothing came over it.
_STEADY_S = 10.0
#: The gateway answers `close` by closing the socket with this code, and `cancel` by the turn's end; one that does not is not waited for.
_LEFT = 1000
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Home:
    """Where sessions are, and who opens them."""

    settings: Settings
    #: Closes a session that no socket can be asked to close.
    close_session: Callable[[str], Awaitable[object]]

    def url(self, ticker: str) -> str:
        scheme, _, rest = self.settings.base_url.partition("://")
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws/agent/{quote(ticker, safe='')}"


class Session:
    """Entered by `async with`, or by `with` in programs without an event loop."""

    def __init__(self, home: Home, ticker: str, session_id: str | None = None) -> None:
        self._home = home
        self._url = home.url(ticker)
        self.session_id = session_id
        #: `id`, `ticker`, `name` and `service_price`, once it is open.
        self.agent: dict[str, Any] = {}
        self.message_count = 0
        #: US dollars as decimal text; None until the gateway has told.
        self.credits_remaining: str | None = None
        self.credits_reserved: str | None = None
        self.session_total = "0.00"
        #: Something was lost for good at the last resume: a turn that died with the gateway, for instance.
        self.discontinuity = False
        self._turn: Turn | None = None
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        #: When a connection was lost that had been good for something, and tries since.
        self._lost_at: float | None = None
        self._attempt = 0
        self._opened_at = 0.0
        self._has_heard = False
        self._error: ChatError | None = None
        self._is_closing = False
        #: The gateway has said goodbye.
        self._has_left = False
        self._wanted = asyncio.Event()
        self._thread: LoopThread | None = None

    async def __aenter__(self) -> Session:
        attempt = 0
        while True:
            try:
                await self._open()
                break
            except ChatError as error:
                wait = max(error.retry_after or 0.0, backoff(attempt))
                if error.close_code not in RECONNECT_CODES or attempt >= self._home.settings.max_retries or wait > self._home.settings.timeout:
                    raise
                await asyncio.sleep(wait)
                attempt += 1
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __enter__(self) -> Session:
        thread = LoopThread()
        try:
            thread.run(self.__aenter__())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        thread = self._blocking()
        try:
            thread.run(self.close())
        finally:
            self._thread = None
            thread.stop()

    def send(self, prompt: str, id: str | None = None) -> Turn:
        """The message and its answer, to be read. The same `id` in the same session is the same turn, charged once."""
        return Turn(self, prompt, id)

    async def close(self) -> None:
        """Ends the session and frees what it holds; a turn that runs is cancelled. Leaving the `with` block does it too."""
        if self._is_closing or self._task is None:
            return
        self._is_closing = True
        if self._connection is not None:
            await self._connection.send({"type": "close"})
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._task), _PATIENCE_S)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._connection is not None:
            await self._connection.close()
        if self._error is None and not self._has_left and self.session_id is not None:
            # Should this fail too, the gateway closes the session when nobody resumes it.
            with suppress(Exception):
                await asyncio.wait_for(self._home.close_session(self.session_id), _PATIENCE_S)
        self._end(_closed())

    # The turns' side.

    async def _begin(self, turn: Turn) -> None:
        if self._turn is turn or turn._over.is_set():
            return
        while self._turn is not None:
            await self._cancel(self._turn)
        if self._error is not None:
            raise self._error
        if self._task is None:
            raise RuntimeError("A session is entered before it is used: async with client.session(…) as session")
        self._turn = turn
        self._wanted.set()
        if self._connection is not None:
            await self._say(turn)

    async def _cancel(self, turn: Turn) -> None:
        if self._turn is not turn:
            return
        if not turn.is_cancelled:
            turn.is_cancelled = True
            if self._connection is not None:
                await self._connection.send({"type": "cancel"})
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(turn._over.wait(), _PATIENCE_S)

    def _blocking(self) -> LoopThread:
        if self._thread is None:
            raise RuntimeError("A session that was entered by `async with` is read by `async for`; `for` needs `with`")
        return self._thread

    # The socket's side.

    async def _run(self) -> None:
        try:
            while True:
                error = await self._listen()
                self._connection = None
                if self._is_closing:
                    self._has_left = error.close_code == _LEFT
                    return
                now = time.monotonic()
                if self._lost_at is None or self._turn is None or self._has_heard or now - self._opened_at >= _STEADY_S:
                    self._lost_at = now
                    self._attempt = 0
                await self._come_back(error, self._lost_at + RESUME_S)
        except ChatError as error:
            self._end(error)
        except Exception as error:
            self._end(ChatError("invalid_answer", f"The gateway sent what can't be read: {error!r}", fatal=True))

    async def _listen(self) -> ChatError:
        assert self._connection is not None
        try:
            async for frame in self._connection.frames():
                self._hear(frame)
        except ChatError as error:
            return error
        raise AssertionError("frames never ends without an error")

    async def _come_back(self, error: ChatError, deadline: float) -> None:
        """Resumes the session, or raises what it failed for."""
        while error.close_code in RECONNECT_CODES:
            if error.close_code == IDLE and self._turn is None:
                self._wanted.clear()
                await self._wanted.wait()
            wait = max(error.retry_after or 0.0, reconnect(self._attempt))
            if time.monotonic() + wait > deadline:
                break
            self._attempt += 1
            _log.info("chat session %s: %s; resuming in %.3g s", self.session_id, error, wait)
            await asyncio.sleep(wait)
            try:
                return await self._open()
            except ChatError as refusal:
                error = refusal
        raise error

    async def _open(self) -> None:
        settings = self._home.settings
        connection, frame = await Connection.open(self._url, settings.api_key, self.session_id)
        self._connection = connection
        self._opened_at = time.monotonic()
        self._has_heard = False
        self.session_id = frame["session_id"]
        self.agent = dict(frame["agent"])
        self.credits_reserved = frame["credits_reserved"]
        self.message_count = frame["message_count"]
        self.session_total = frame.get("session_total", self.session_total)
        self.discontinuity = frame.get("discontinuity", False)
        turn = self._turn
        if turn is None:
            return
        if "replayed_from" not in frame:
            await self._say(turn)
            return
        turn._tell_from(frame["replayed_from"])
        if turn.is_cancelled:
            await connection.send({"type": "cancel"})

    async def _say(self, turn: Turn) -> None:
        """For the first time, or again: the gateway tells a message that it knows by its id."""
        if turn.is_cancelled:
            return self._end_turn(Turn._stopped)
        turn._tell_from(0)
        assert self._connection is not None
        await self._connection.send({"type": "message", "prompt": turn.prompt, "id": turn.id})

    def _hear(self, frame: Frame) -> None:
        self._has_heard = True
        kind = frame["type"]
        turn = self._turn
        if kind == "billing":
            self.credits_remaining = frame["credits_remaining"]
            self.credits_reserved = frame["credits_reserved"]
            self.session_total = frame["session_total"]
        # A turn of whoever had the session before is not ours.
        if turn is None or frame.get("id", turn.id) != turn.id:
            return
        if kind == "chunk":
            turn._chunk(frame["data"])
        elif kind == "done":
            turn._done(frame)
            self.message_count = frame["message_index"]
        elif kind == "billing" and frame["order_id"] == turn.order_id:
            turn.is_cancelled = False
            self._end_turn(lambda turn: turn._billed(frame))
        elif kind == "notice" and frame.get("code") == "turn_cancelled":
            self._end_turn(Turn._stopped)
        elif kind == "error":
            error = ChatError(frame["code"], frame["detail"], facts=frame)
            self._end_turn(lambda turn: turn._failed(error))

    def _end_turn(self, end: Callable[[Turn], None]) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            end(turn)

    def _end(self, error: ChatError) -> None:
        self._error = self._error or error
        self._end_turn(lambda turn: turn._stopped() if turn.is_cancelled or self._is_closing else turn._failed(error))


def _closed() -> ChatError:
    return ChatError("session_closed", "The session is closed", fatal=True)
