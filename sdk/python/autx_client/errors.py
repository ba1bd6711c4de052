"""The one error that is not httpx's.

REST calls raise `httpx.HTTPStatusError` for every status that is no success, with
the gateway's words in its message, and `httpx.TransportError` (of which
`httpx.TimeoutException` is one) when no answer came.
"""

from __future__ import annotations

from typing import Any, Mapping


class ChatError(Exception):
    """What a message or a whole chat was refused for, or why it ended."""

    def __init__(self, code: str, detail: str, *, fatal: bool = False, close_code: int | None = None, facts: Mapping[str, Any] = {}) -> None:
        super().__init__(f"{code}: {detail}")
        #: The code of the gateway's error frame; `connection_lost` and `connection_failed` are ours.
        self.code = code
        #: The gateway's words.
        self.detail = detail
        #: The session's socket ended with it. Otherwise the next message may be sent.
        self.fatal = fatal
        #: Seconds after which to try again, when the gateway said so.
        self.retry_after: float | None = facts.get("retry_after")
        #: Of the WebSocket, when it ended.
        self.close_code = close_code
        #: The gateway's error frame, with its figures: `required_usd`, `available_usd` and the like.
        self.facts = facts
