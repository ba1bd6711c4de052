"""The gateway that the tests run against (`AUTX_TEST_URL`), people who use it, and
agents that they list. The gateway lets everybody add credits, and call loopback."""

from __future__ import annotations

import os
import unittest
import uuid
from decimal import Decimal
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable

import httpx

from autx_client import AutxAsyncClient, AutxClient
from tests.agent import Agent, Request

GATEWAY = os.environ["AUTX_TEST_URL"]
BASE_URL = f"{GATEWAY}/api/v1"
http = httpx.Client(base_url=BASE_URL)


def ask(method: str, path: str, token: str | None = None, body: Any = None) -> Any:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    response = http.request(method, path, headers=headers, json=body)
    assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
    return response.json()


class Person:
    """Somebody new with a key of all scopes."""

    def __init__(self, usd: str | None = None) -> None:
        email = f"{uuid.uuid4()}@example.com"
        self.login: str = ask("POST", "/auth/register", body={"email": email, "password": "correct horse"})["access_token"]
        self.key: str = ask("POST", "/api-keys", self.login, {"name": "test", "scopes": "*"})["key"]
        if usd is not None:
            ask("POST", "/credits/deposit-test", self.login, {"amount": usd})

    @cached_property
    def client(self) -> AutxClient:
        return AutxClient(api_key=self.key, base_url=BASE_URL)

    def async_client(self) -> AutxAsyncClient:
        return AutxAsyncClient(api_key=self.key, base_url=BASE_URL)

    def lists(self, url: str, price: str, ticker: str | None = None, **fields: Any) -> dict[str, Any]:
        name = ticker or f"T{uuid.uuid4().hex[:8].upper()}"
        body = {"name": name, "ticker": name, "description": "Scripted", "category": "Test", "endpoint_url": url, "service_price": price, **fields}
        listed: dict[str, Any] = ask("POST", "/agents", self.login, body)
        return listed

    def charges(self) -> list[Decimal]:
        """What was charged so far, newest first."""
        rows = self.client.credits.transactions(limit=100)
        return [-Decimal(row["amount_usd"]) for row in rows if row["type"] == "charge"]


@cache
def owner() -> Person:
    """Who lists the agents of all tests."""
    return Person()


class WorldTest(unittest.TestCase):
    """A buyer with ten dollars, and agents."""

    def setUp(self) -> None:
        self.buyer = Person("10.00")

    def agent(self, behave: Callable[[BaseHTTPRequestHandler, Request], None], price: str = "0.01", **fields: Any) -> tuple[Agent, str]:
        """The agent and its ticker."""
        agent = Agent(behave)
        self.addCleanup(agent.close)
        return agent, owner().lists(agent.url, price, **fields)["ticker"]
