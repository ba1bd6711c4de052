"""What calls return. Fields the gateway adds later are passed over.

Each value can be awaited and answers itself at once, so that a program may write
`await client.credits.balance()` with the blocking client too. Prices of agents
and orders are floats, all other money is decimal text in US dollars; times are
ISO 8601 in UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Dict, Generator, Iterable, List, Mapping, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx

_Self = TypeVar("_Self")
_Row = TypeVar("_Row")


class Ready:
    """There already: `await` answers the value itself."""

    __slots__ = ()

    def __await__(self: _Self) -> Generator[Any, None, _Self]:
        yield from ()
        return self


class Done:
    """Something was done that has no result: `await` answers None."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


class Facts(Ready, Dict[str, Any]):
    """A JSON object as it came."""


class Document(Ready, bytes):
    """A file."""


class Page(Ready, List[_Row]):
    """Rows of a list. `next_cursor` asks for those after them; None: there are none."""

    next_cursor: str | None

    def __init__(self, rows: Iterable[_Row], next_cursor: str | None = None) -> None:
        super().__init__(rows)
        self.next_cursor = next_cursor


@dataclass(frozen=True)
class ProxyResponse(Ready):
    """An agent's answer, unchanged, and what the gateway says about the call."""

    content: bytes
    status_code: int
    content_type: str
    headers: dict[str, str]
    request_id: str
    latency_ms: int
    agent_ticker: str

    @property
    def text(self) -> str:
        """`content` by the charset of its type; UTF-8 unless it names one."""
        return httpx.Response(200, headers={"content-type": self.content_type}, content=self.content).text

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class OrderResponse(Ready):
    """An order that was accepted: its price is debited."""

    id: str
    agent_id: str
    status: str
    amount_paid: float
    platform_fee: float
    created_at: str


@dataclass(frozen=True)
class OrderResult(Ready):
    """An order as it is now: `pending`, `completed`, or `failed` and refunded."""

    id: str
    status: str
    output_hash: str | None
    output_text: str | None
    completed_at: str | None
    error: str | None
    agent_id: str
    prompt: str
    payment_method: str
    amount_paid: float
    platform_fee: float
    created_at: str


@dataclass(frozen=True)
class AgentListItem(Ready):
    """An agent with its price."""

    id: str
    name: str
    ticker: str
    description: str
    category: str
    service_price: float
    endpoint_url: str
    status: str
    auth_tier: str
    manifest: dict[str, Any] | None
    total_requests: int
    total_revenue: float
    owner_id: str
    free_tier_calls: int
    created_at: str


def proxy_response(response: httpx.Response) -> ProxyResponse:
    headers = dict(response.headers)
    return ProxyResponse(
        content=response.content,
        status_code=response.status_code,
        content_type=headers.get("content-type", ""),
        headers=headers,
        request_id=headers.get("x-autx-request-id", ""),
        latency_ms=int(headers.get("x-autx-latency-ms", "0")),
        agent_ticker=headers.get("x-autx-agent", ""),
    )


def order_response(response: httpx.Response) -> OrderResponse:
    return _read(OrderResponse, response.json())


def order_result(response: httpx.Response) -> OrderResult:
    return _read(OrderResult, response.json())


def order_results(response: httpx.Response) -> Page[OrderResult]:
    return _page(response, [_read(OrderResult, row) for row in response.json()])


def agent(response: httpx.Response) -> AgentListItem:
    return _read(AgentListItem, response.json())


def agents(response: httpx.Response) -> Page[AgentListItem]:
    return _page(response, [_read(AgentListItem, row) for row in response.json()])


def facts(response: httpx.Response) -> Facts:
    return Facts(response.json())


def rows(response: httpx.Response) -> Page[dict[str, Any]]:
    return _page(response, response.json())


def document(response: httpx.Response) -> Document:
    return Document(response.content)


def done(_: httpx.Response) -> Done:
    return Done()


def _page(response: httpx.Response, found: Iterable[_Row]) -> Page[_Row]:
    link = response.links.get("next", {}).get("url", "")
    return Page(found, parse_qs(urlsplit(link).query).get("cursor", [None])[0])


def _read(result: type[_Row], data: Mapping[str, Any]) -> _Row:
    values = {field.name: data.get(field.name) for field in fields(result)}  # type: ignore[arg-type]
    # A whole number of dollars comes as an integer.
    return result(**{name: float(value) if isinstance(value, int) and name in _DOLLARS else value for name, value in values.items()})


_DOLLARS = {"amount_paid", "platform_fee", "service_price", "total_revenue"}
