"""The blocking client.

What it returns may be awaited as well, and chats are the same with `async with`
as with `with`. Its calls block all the same: a program whose event loop must not
wait for them takes `AutxAsyncClient`.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Sequence, TypeVar

import httpx

from . import calls, results
from .calls import Call, File
from .retries import Settings, check
from .session import Home, Session
from .turn import Stream

T = TypeVar("T")

#: The product's own gateway.
BASE_URL = "https://api.autx.ai/v1"


class Credits:
    """The prepaid balance. Amounts are decimal text ("10.00") or numbers; text is exact."""

    def __init__(self, client: AutxClient) -> None:
        self._client = client

    def balance(self) -> results.Facts:
        return self._client._do(calls.balance())

    def deposit(self, tx_hash: str) -> results.Facts:
        """Credits an on-chain transfer that has been made."""
        return self._client._do(calls.deposit(tx_hash))

    def deposit_test(self, amount: str | float) -> results.Facts:
        """For development: 404 where test credits are off."""
        return self._client._do(calls.deposit_test(amount))

    def withdraw(self, amount: str | float, to_address: str | None = None) -> results.Facts:
        return self._client._do(calls.withdraw(amount, to_address))

    def transactions(self, *, limit: int | None = None, cursor: str | None = None) -> results.Page[dict[str, Any]]:
        """Newest first."""
        return self._client._do(calls.transactions(limit, cursor))

    def holds(self, *, limit: int | None = None) -> results.Page[dict[str, Any]]:
        """What is set aside for calls in flight, open sessions and pending orders."""
        return self._client._do(calls.holds(limit))


class AutxClient:
    def __init__(self, api_key: str, base_url: str = BASE_URL, timeout: float = 120, max_retries: int = 3) -> None:
        self._settings = Settings(api_key, base_url, timeout, max_retries)
        self._http = httpx.Client(**self._settings.http_options)
        self._home = Home(self._settings, lambda session_id: asyncio.to_thread(self.close_session, session_id))
        self.credits = Credits(self)

    def __enter__(self) -> AutxClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes idle connections. Chats have their own."""
        self._http.close()

    def proxy(self, ticker_or_id: str, prompt: str | None = None, body: Any = None, *, idempotency_key: str | None = None) -> results.ProxyResponse:
        """Calls an agent. Bytes and text go as they are, anything else as JSON. Tried again only with an `idempotency_key`."""
        return self._do(calls.proxy(ticker_or_id, prompt, body, idempotency_key))

    def order(
        self, agent_id: str, prompt: str, payment_method: str = "credits", files: Sequence[File] | None = None, *, idempotency_key: str | None = None
    ) -> results.OrderResponse:
        """Creates a paid order, charged once however often it is tried: it carries an idempotency key, its own unless one is given.

        Files of more than 960 KiB in all go without, and are tried once.
        """
        return self._do(calls.order(agent_id, prompt, payment_method, files, idempotency_key))

    def get_order(self, order_id: str) -> results.OrderResult:
        return self._do(calls.get_order(order_id))

    def list_orders(self, status: str | None = None, *, limit: int | None = None, cursor: str | None = None) -> results.Page[results.OrderResult]:
        """Newest first."""
        return self._do(calls.list_orders(status, limit, cursor))

    def list_agents(
        self, category: str | None = None, sort: str = "revenue", *, limit: int | None = None, cursor: str | None = None
    ) -> results.Page[results.AgentListItem]:
        """`sort`: trending, mcap, apy, new or revenue."""
        return self._do(calls.list_agents(category, sort, limit, cursor))

    def list_my_agents(self, *, limit: int | None = None, cursor: str | None = None) -> results.Page[results.AgentListItem]:
        """One's own, paused ones too; the newest first."""
        return self._do(calls.list_agents(None, "new", limit, cursor, "me"))

    def get_agent_by_ticker(self, ticker: str) -> results.AgentListItem:
        return self._do(calls.get_agent(ticker))

    def update_agent(self, agent_id: str, **changes: Any) -> results.AgentListItem:
        """By its owner: name, description, category, endpoint_url, service_price, status, auth_tier, manifest, free_tier_calls."""
        return self._do(calls.update_agent(agent_id, changes))

    def update_provider_key(self, agent_id: str, provider_key: str, provider: str | None = None) -> results.AgentListItem:
        """By its owner: the key that the agent is called with."""
        return self._do(calls.update_provider_key(agent_id, provider_key, provider))

    def get_credit_balance(self) -> results.Facts:
        return self.credits.balance()

    def list_sessions(self, *, limit: int | None = None, cursor: str | None = None) -> results.Page[dict[str, Any]]:
        return self._do(calls.list_sessions(limit, cursor))

    def get_session(self, session_id: str) -> results.Facts:
        return self._do(calls.get_session(session_id))

    def close_session(self, session_id: str) -> results.Done:
        """A turn that runs is not charged. Closing a closed session does nothing."""
        return self._do(calls.close_session(session_id))

    def get_session_messages(self, session_id: str, *, limit: int | None = None, cursor: str | None = None) -> results.Page[dict[str, Any]]:
        return self._do(calls.get_session_messages(session_id, limit, cursor))

    def get_session_receipt(self, session_id: str) -> results.Document:
        """A PDF, once the session is closed and has cost something."""
        return self._do(calls.get_session_receipt(session_id))

    def stream(self, ticker: str, prompt: str) -> Stream:
        """One message and its answer as it comes, in a session of its own."""
        return Stream(self.session(ticker), prompt)

    def session(self, ticker: str, session_id: str | None = None) -> Session:
        """A chat of many messages. With `session_id` it goes on with one that was left within the last 120 s."""
        return Session(self._home, ticker, session_id)

    create_session = session

    def _do(self, call: Call[T]) -> T:
        request = call.request(self._http, self._settings.base_url)
        attempt = 0
        while True:
            try:
                outcome: httpx.Response | httpx.TransportError = self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            wait = self._settings.wait_after(call, attempt, outcome)
            if wait is None:
                return call.parse(check(outcome))
            time.sleep(wait)
            attempt += 1
