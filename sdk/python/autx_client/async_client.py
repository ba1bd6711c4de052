"""The client for programs with an event loop: the same calls, as coroutines."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Sequence, TypeVar

import httpx

from . import calls, results
from .calls import Call, File
from .client import BASE_URL
from .retries import Settings, check
from .session import Home, Session
from .turn import Stream

T = TypeVar("T")


class AsyncCredits:
    """The prepaid balance. Amounts are decimal text ("10.00") or numbers; text is exact."""

    def __init__(self, client: AutxAsyncClient) -> None:
        self._client = client

    async def balance(self) -> results.Facts:
        return await self._client._do(calls.balance())

    async def deposit(self, tx_hash: str) -> results.Facts:
        """Credits an on-chain transfer that has been made."""
        return await self._client._do(calls.deposit(tx_hash))

    async def deposit_test(self, amount: str | float) -> results.Facts:
        """For development: 404 where test credits are off."""
        return await self._client._do(calls.deposit_test(amount))

    async def withdraw(self, amount: str | float, to_address: str | None = None) -> results.Facts:
        return await self._client._do(calls.withdraw(amount, to_address))

    async def transactions(self, *, limit: int | None = None, cursor: str | None = None) -> results.Page[dict[str, Any]]:
        """Newest first."""
        return await self._client._do(calls.transactions(limit, cursor))

    async def holds(self, *, limit: int | None = None) -> results.Page[dict[str, Any]]:
        """What is set aside for calls in flight, open sessions and pending orders."""
        return await self._client._do(calls.holds(limit))


class AutxAsyncClient:
    def __init__(self, api_key: str, base_url: str = BASE_URL, timeout: float = 120, max_retries: int = 3) -> None:
        self._settings = Settings(api_key, base_url, timeout, max_retries)
        self._http = httpx.AsyncClient(**self._settings.http_options)
        self._home = Home(self._settings, self.close_session)
        self.credits = AsyncCredits(self)

    async def __aenter__(self) -> AutxAsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes idle connections. Chats have their own."""
        await self._http.aclose()

    async def proxy(self, ticker_or_id: str, prompt: str | None = None, body: Any = None, *, idempotency_key: str | None = None) -> results.ProxyResponse:
        """Calls an agent. Bytes and text go as they are, anything else as JSON. Tried again only with an `idempotency_key`."""
        return await self._do(calls.proxy(ticker_or_id, prompt, body, idempotency_key))

    async def order(
        self, agent_id: str, prompt: str, payment_method: str = "credits", files: Sequence[File] | None = None, *, idempotency_key: str | None = None
    ) -> results.OrderResponse:
        """Creates a paid order, charged once however often it is tried: it carries an idempotency key, its own unless one is given.

        Files of more than 960 KiB in all go without, and are tried once.
        """
        return await self._do(calls.order(agent_id, prompt, payment_method, files, idempotency_key))

    async def get_order(self, order_id: str) -> results.OrderResult:
        return await self._do(calls.get_order(order_id))

    async def list_orders(self, status: str | None = None, *, limit: int | None = None, cursor: str | None = None) -> results.Page[results.OrderResult]:
        """Newest first."""
        return await self._do(calls.list_orders(status, limit, cursor))

    async def list_agents(
        self, category: str | None = None, sort: str = "revenue", *, limit: int | None = None, cursor: str | None = None
    ) -> results.Page[results.AgentListItem]:
        """`sort`: trending, mcap, apy, new or revenue."""
        return await self._do(calls.list_agents(category, sort, limit, cursor))

    async def list_my_agents(self, *, limit: int | None = None, cursor: str | None = None) -> results.Page[results.AgentListItem]:
        """One's own, paused ones too; the newest first."""
        return await self._do(calls.list_agents(None, "new", limit, cursor, "me"))

    async def get_agent_by_ticker(self, ticker: str) -> results.AgentListItem:
        return await self._do(calls.get_agent(ticker))

    async def update_agent(self, agent_id: str, **changes: Any) -> results.AgentListItem:
        """By its owner: name, description, category, endpoint_url, service_price, status, auth_tier, manifest, free_tier_calls."""
        return await self._do(calls.update_agent(agent_id, changes))

    async def update_provider_key(self, agent_id: str, provider_key: str, provider: str | None = None) -> results.AgentListItem:
        """By its owner: the key that the agent is called with."""
        return await self._do(calls.update_provider_key(agent_id, provider_key, provider))

    async def get_credit_balance(self) -> results.Facts:
        return await self.credits.balance()

    async def list_sessions(self, *, limit: int | None = None, cursor: str | None = None) -> results.Page[dict[str, Any]]:
        return await self._do(calls.list_sessions(limit, cursor))

    async def get_session(self, session_id: str) -> results.Facts:
        return await self._do(calls.get_session(session_id))

    async def close_session(self, session_id: str) -> None:
        """A turn that runs is not charged. Closing a closed session does nothing."""
        await self._do(calls.close_session(session_id))

    async def get_session_messages(self, session_id: str, *, limit: int | None = None, cursor: str | None = None) -> results.Page[dict[str, Any]]:
        return await self._do(calls.get_session_messages(session_id, limit, cursor))

    async def get_session_receipt(self, session_id: str) -> results.Document:
        """A PDF, once the session is closed and has cost something."""
        return await self._do(calls.get_session_receipt(session_id))

    def stream(self, ticker: str, prompt: str) -> Stream:
        """One message and its answer as it comes, in a session of its own."""
        return Stream(self.session(ticker), prompt)

    def session(self, ticker: str, session_id: str | None = None) -> Session:
        """A chat of many messages. With `session_id` it goes on with one that was left within the last 120 s."""
        return Session(self._home, ticker, session_id)

    create_session = session

    async def _do(self, call: Call[T]) -> T:
        request = call.request(self._http, self._settings.base_url)
        attempt = 0
        while True:
            try:
                outcome: httpx.Response | httpx.TransportError = await self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            wait = self._settings.wait_after(call, attempt, outcome)
            if wait is None:
                return call.parse(check(outcome))
            await asyncio.sleep(wait)
            attempt += 1
