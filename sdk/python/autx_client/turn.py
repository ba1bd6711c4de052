"""One message and its answer.

Guarantee: no part of an answer is delivered twice or left out. After a reconnect
the gateway tells the answer from its start: what was delivered is compared and
passed over. Should it be another answer, because the gateway died and the agent
was asked anew, the next chunk says so (`restarted`) and begins the new answer.

Failure: the reader gets what came, then the `ChatError`. What nobody reads waits;
an answer has at most 1 Mi characters.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, AsyncGenerator, Deque, Generator

from .connection import Frame
from .errors import ChatError

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True)
class Chunk:
    delta: str
    #: What came before was lost with the gateway; the answer begins anew with this chunk.
    restarted: bool = False


class Turn:
    """Read it once, with `async for`, or with `for` in a session that was entered by `with`.

    The message is sent when reading begins. Leaving the loop early cancels the
    turn: nothing is charged, unless the answer was complete already.
    """

    def __init__(self, session: Session, prompt: str, id: str | None = None) -> None:
        self._session = session
        self.prompt = prompt
        #: Sending the same id again in the same session repeats the finished turn and charges nothing.
        self.id = id or str(uuid.uuid4())
        #: What has come so far; at the end the whole answer.
        self.text = ""
        #: US dollars; 0 until the end, and when nothing was charged.
        self.cost_usd = 0.0
        #: The same as exact decimal text.
        self.amount_charged = "0.00"
        self.order_id: str | None = None
        self.output_hash: str | None = None
        self.message_index: int | None = None
        #: It was given up, and not charged.
        self.is_cancelled = False
        self._waiting: Deque[Chunk] = deque()
        #: How much of `text` the gateway has told on this connection.
        self._told = 0
        self._error: ChatError | None = None
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def session_id(self) -> str | None:
        return self._session.session_id

    async def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        await self._session._begin(self)
        try:
            while True:
                while self._waiting:
                    yield self._waiting.popleft()
                if self._error is not None:
                    raise self._error
                if self._over.is_set():
                    return
                self._news.clear()
                await self._news.wait()
        finally:
            await self.cancel()

    def __iter__(self) -> Generator[Chunk, None, None]:
        thread = self._session._blocking()
        chunks = self.__aiter__()

        async def take() -> Chunk | None:
            return await anext(chunks, None)

        async def leave() -> None:
            await chunks.aclose()

        try:
            while (chunk := thread.run(take())) is not None:
                yield chunk
        finally:
            if self._session._thread is thread:
                thread.run(leave())

    async def cancel(self) -> None:
        """Gives the answer up, and waits until the turn is over. Does nothing after its end."""
        await self._session._cancel(self)

    # The session's side.

    def _tell_from(self, position: int) -> None:
        self._told = min(position, len(self.text))

    def _chunk(self, data: str) -> None:
        known = self.text[self._told : self._told + len(data)]
        if not data.startswith(known):
            return self._restart(data)
        self._told += len(data)
        if len(known) < len(data):
            self._deliver(Chunk(data[len(known) :]))

    def _done(self, frame: Frame) -> None:
        if self._told < len(self.text):
            self._restart("")
        self.order_id = frame["order_id"]
        self.output_hash = frame["output_hash"]
        self.message_index = frame["message_index"]

    def _billed(self, frame: Frame) -> None:
        self.amount_charged = frame["amount_charged"]
        self.cost_usd = float(self.amount_charged)
        self._end()

    def _stopped(self) -> None:
        self.is_cancelled = True
        self._end()

    def _failed(self, error: ChatError) -> None:
        self._error = error
        self._end()

    def _restart(self, data: str) -> None:
        """The new answer is the old one as far as it was told, then `data`."""
        delta = self.text[: self._told] + data
        self.text = ""
        self._told = len(delta)
        self._deliver(Chunk(delta, restarted=True))

    def _deliver(self, chunk: Chunk) -> None:
        self.text += chunk.delta
        self._waiting.append(chunk)
        self._news.set()

    def _end(self) -> None:
        self._over.set()
        self._news.set()


class Stream(Turn):
    """One message in a session of its own, which ends with the `with` block."""

    async def __aenter__(self) -> Stream:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.__aexit__(kind, error, trace)

    def __enter__(self) -> Stream:
        self._session.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session.__exit__(kind, error, trace)
