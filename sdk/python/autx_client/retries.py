"""Which failed tries are made again, and when.

A call is tried again, at most `max_retries` times, when its connection failed or
the answer was 429 or 502 to 504, and then only when a second try can do no harm:
a POST needs an idempotency key. A retry that meets its own first try still at
work (409 with `Retry-After`) waits for it too. The wait is what `Retry-After`
says, at least that of the backoff; a longer one than `timeout` is not waited for.
A try that ran out of time is not repeated: its caller has waited enough.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from .backoff import backoff
from .calls import Call

_CONNECTION_FAILURES = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)
#: Seconds to connect; the rest of a try has `timeout`.
_CONNECT_S = 10.0


@dataclass(frozen=True)
class Settings:
    api_key: str
    #: Without a slash at its end.
    base_url: str
    #: Seconds.
    timeout: float
    max_retries: int

    def __post_init__(self) -> None:
        if not self.api_key:
            raise ValueError("api_key is required")
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    @property
    def http_options(self) -> dict[str, Any]:
        timeout = httpx.Timeout(self.timeout, connect=min(_CONNECT_S, self.timeout))
        return {"headers": {"authorization": f"Bearer {self.api_key}"}, "timeout": timeout}

    def wait_after(self, call: Call[Any], attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the next try; None: this outcome stands. `attempt` counts from 0."""
        if attempt >= self.max_retries or not call.is_repeatable:
            return None
        if isinstance(outcome, httpx.TransportError):
            return backoff(attempt) if isinstance(outcome, _CONNECTION_FAILURES) else None
        retry_after = _retry_after(outcome)
        is_own_first_try = outcome.status_code == 409 and attempt > 0 and retry_after is not None
        if outcome.status_code not in (429, 502, 503, 504) and not is_own_first_try:
            return None
        wait = max(retry_after or 0.0, backoff(attempt))
        return wait if wait <= self.timeout else None


def check(outcome: httpx.Response | httpx.TransportError) -> httpx.Response:
    """Raises for what is no answer, and for every status that is no success, with the gateway's words."""
    if isinstance(outcome, httpx.TransportError):
        raise outcome
    if outcome.is_success:
        return outcome
    raise httpx.HTTPStatusError(f"HTTP {outcome.status_code}: {_detail(outcome)}", request=outcome.request, response=outcome)


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, LookupError, TypeError):
        detail = None
    return detail if isinstance(detail, str) else response.text[:500]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; the header is a number or a date (RFC 9110 §10.2.3)."""
    header = response.headers.get("retry-after", "")
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
