"""The gateway's REST interface, one function a route: what is sent and how its
answer is read. Both clients perform these descriptions, so they can't differ.

Every POST that creates or moves money carries an idempotency key, so that a retry
repeats the first answer and charges nothing. The gateway takes at most 1 MiB with
a key, and keeps answers of at most 64 KiB; so an order with larger files goes
without, and a proxied call unless its caller gives one. Neither is retried then.
"""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass, field
from typing import IO, Any, Callable, Generic, Mapping, Sequence, Tuple, TypeVar, Union
from urllib.parse import quote

import httpx

from . import results

T = TypeVar("T")

#: What files and prompt may have together; the form around them needs the rest of 1 MiB.
_KEYED_BYTES_MAX = 1024 * 1024 - 64 * 1024

#: A name, the content, and its type unless the name tells it.
File = Union[Tuple[str, Union[IO[bytes], bytes]], Tuple[str, Union[IO[bytes], bytes], str]]


@dataclass(frozen=True)
class Call(Generic[T]):
    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    #: Parameters that are None are left out.
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    #: Sending it twice does what sending it once does.
    is_repeatable: bool = True

    def request(self, http: httpx.Client | httpx.AsyncClient, base_url: str) -> httpx.Request:
        """May be sent again and again: the same bytes each time."""
        headers = {} if self.idempotency_key is None else {"idempotency-key": self.idempotency_key}
        body = {**self.body, "headers": {**headers, **self.body.get("headers", {})}}
        query = {name: value for name, value in self.query.items() if value is not None}
        return http.build_request(self.method, base_url + self.path, params=query, **body)


def proxy(ticker_or_id: str, prompt: str | None, body: Any, idempotency_key: str | None) -> Call[results.ProxyResponse]:
    if prompt is not None and body is not None:
        raise ValueError("give a prompt or a body, not both")
    return Call(
        "POST",
        f"/proxy/{_segment(ticker_or_id)}",
        results.proxy_response,
        body=_content({"prompt": prompt} if prompt is not None else body),
        idempotency_key=idempotency_key,
        is_repeatable=idempotency_key is not None,
    )


def order(agent_id: str, prompt: str, payment_method: str, files: Sequence[File] | None, idempotency_key: str | None) -> Call[results.OrderResponse]:
    fields = {"agent_id": agent_id, "prompt": prompt, "payment_method": payment_method}
    if not files:
        return _post("/orders", results.order_response, fields, idempotency_key)
    sizes = [_size(file[1]) for file in files]
    size = None if None in sizes else sum((each or 0 for each in sizes), len(prompt.encode()))
    if idempotency_key is None and size is not None and size <= _KEYED_BYTES_MAX:
        idempotency_key = _new_key()
    return Call(
        "POST",
        "/orders/multipart",
        results.order_response,
        # The fields go first: the gateway decides about the order before it reads the files.
        body={"data": fields, "files": [("files", file) for file in files]},
        idempotency_key=idempotency_key,
        is_repeatable=idempotency_key is not None and size is not None,
    )


def get_order(order_id: str) -> Call[results.OrderResult]:
    return Call("GET", f"/orders/{_segment(order_id)}", results.order_result)


def list_orders(status: str | None, limit: int | None, cursor: str | None) -> Call[results.Page[results.OrderResult]]:
    return Call("GET", "/orders", results.order_results, {"status": status, "limit": limit, "cursor": cursor})


def list_agents(category: str | None, sort: str, limit: int | None, cursor: str | None, owner: str | None = None) -> Call[results.Page[results.AgentListItem]]:
    return Call("GET", "/agents", results.agents, {"category": category, "sort": sort, "owner": owner, "limit": limit, "cursor": cursor})


def get_agent(ticker_or_id: str) -> Call[results.AgentListItem]:
    return Call("GET", f"/agents/{_segment(ticker_or_id)}", results.agent)


def update_agent(agent_id: str, changes: Mapping[str, Any]) -> Call[results.AgentListItem]:
    return Call("PATCH", f"/agents/{_segment(agent_id)}", results.agent, body={"json": dict(changes)})


def update_provider_key(agent_id: str, provider_key: str, provider: str | None) -> Call[results.AgentListItem]:
    named = {} if provider is None else {"provider": provider}
    return Call("PUT", f"/agents/{_segment(agent_id)}/provider-key", results.agent, body={"json": {"provider_key": provider_key, **named}})


def balance() -> Call[results.Facts]:
    return Call("GET", "/credits/balance", results.facts)


def deposit(tx_hash: str) -> Call[results.Facts]:
    return _post("/credits/deposit", results.facts, {"tx_hash": tx_hash})


def deposit_test(amount: str | float) -> Call[results.Facts]:
    return _post("/credits/deposit-test", results.facts, {"amount": amount})


def withdraw(amount: str | float, to_address: str | None) -> Call[results.Facts]:
    target = {} if to_address is None else {"to_address": to_address}
    return _post("/credits/withdraw", results.facts, {"amount": amount, **target})


def transactions(limit: int | None, cursor: str | None) -> Call[results.Page[dict[str, Any]]]:
    return Call("GET", "/credits/transactions", results.rows, {"limit": limit, "cursor": cursor})


def holds(limit: int | None) -> Call[results.Page[dict[str, Any]]]:
    return Call("GET", "/credits/holds", results.rows, {"limit": limit})


def list_sessions(limit: int | None, cursor: str | None) -> Call[results.Page[dict[str, Any]]]:
    return Call("GET", "/sessions", results.rows, {"limit": limit, "cursor": cursor})


def get_session(session_id: str) -> Call[results.Facts]:
    return Call("GET", f"/sessions/{_segment(session_id)}", results.facts)


def close_session(session_id: str) -> Call[results.Done]:
    return Call("DELETE", f"/sessions/{_segment(session_id)}", results.done)


def get_session_messages(session_id: str, limit: int | None, cursor: str | None) -> Call[results.Page[dict[str, Any]]]:
    return Call("GET", f"/sessions/{_segment(session_id)}/messages", results.rows, {"limit": limit, "cursor": cursor})


def get_session_receipt(session_id: str) -> Call[results.Document]:
    return Call("GET", f"/sessions/{_segment(session_id)}/receipt", results.document)


def _post(path: str, parse: Callable[[httpx.Response], T], fields: Mapping[str, Any], idempotency_key: str | None = None) -> Call[T]:
    return Call("POST", path, parse, body={"json": dict(fields)}, idempotency_key=idempotency_key or _new_key())


def _content(body: Any) -> Mapping[str, Any]:
    if body is None:
        return {}
    if isinstance(body, bytes):
        return {"content": body, "headers": {"content-type": "application/octet-stream"}}
    if isinstance(body, str):
        return {"content": body, "headers": {"content-type": "text/plain; charset=utf-8"}}
    return {"json": body}


def _size(content: IO[bytes] | bytes) -> int | None:
    """None: it can be read once only."""
    if isinstance(content, bytes):
        return len(content)
    if not content.seekable():
        return None
    position = content.tell()
    size = content.seek(0, io.SEEK_END)
    content.seek(position)
    return size


def _segment(name: str) -> str:
    return quote(name, safe="")


def _new_key() -> str:
    return str(uuid.uuid4())
