"""Every REST method of both clients against a real gateway."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import io
import threading
import time
from decimal import Decimal
from typing import Any

import httpx

from autx_client import AutxAsyncClient, AutxClient
from autx_client.async_client import AsyncCredits
from autx_client.client import Credits
from tests.agent import answers
from tests import world
from tests.world import BASE_URL, WorldTest


def completed(client: AutxClient, order_id: str) -> Any:
    """The order, once its agent has answered."""
    while (order := client.get_order(order_id)).status == "pending":
        time.sleep(0.01)
    return order


class Rest(WorldTest):
    def test_proxy_sends_the_prompt_and_returns_the_agent_s_answer_with_what_the_gateway_says(self) -> None:
        agent, ticker = self.agent(answers('{"response": "grüß dich"}', content_type="application/json; charset=utf-8"))
        response = self.buyer.client.proxy(ticker, prompt="Hello")
        self.assertEqual(agent.requests[0].json, {"prompt": "Hello"})
        self.assertEqual(response.json, {"response": "grüß dich"})
        self.assertEqual((response.text, response.content.decode()), ('{"response": "grüß dich"}',) * 2)
        self.assertEqual((response.status_code, response.content_type, response.agent_ticker), (200, "application/json; charset=utf-8", ticker))
        self.assertEqual(response.request_id, agent.requests[0].headers["x-autx-request-id"])
        self.assertEqual((response.headers["x-autx-cost-usd"], type(response.latency_ms)), ("0.01", int))

    def test_proxy_sends_a_raw_body_unchanged_and_anything_else_as_json(self) -> None:
        agent, ticker = self.agent(answers("ok"))
        client = self.buyer.client
        client.proxy(ticker, body=b"\0\xff")
        client.proxy(ticker, body="text")
        client.proxy(ticker, body={"a": [1]})
        client.proxy(ticker)
        self.assertEqual(
            [(request.headers["content-type"], request.body) for request in agent.requests],
            [("application/octet-stream", b"\0\xff"), ("text/plain; charset=utf-8", b"text"), ("application/json", agent.requests[2].body), ("application/json", b"{}")],
        )
        self.assertEqual(agent.requests[2].json, {"a": [1]})

    def test_a_proxied_call_with_a_key_of_its_own_is_charged_once_however_often_it_is_made(self) -> None:
        agent, ticker = self.agent(answers("ok"))
        client = self.buyer.client
        first, second = (client.proxy(ticker, prompt="x", idempotency_key="one") for _ in range(2))
        self.assertEqual((first.text, second.text, len(agent.requests)), ("ok", "ok", 1))
        self.assertEqual(self.buyer.charges(), [Decimal("0.01")])

    def test_a_refusal_is_an_http_status_error_with_the_gateway_s_words(self) -> None:
        with self.assertRaisesRegex(httpx.HTTPStatusError, "HTTP 404: ") as caught:
            self.buyer.client.proxy("NOSUCH", prompt="x")
        self.assertEqual(caught.exception.response.status_code, 404)
        self.assertIn(caught.exception.response.json()["detail"], str(caught.exception))
        with self.assertRaisesRegex(httpx.HTTPStatusError, "HTTP 401: "):
            AutxClient("autx_live_wrong", BASE_URL).credits.balance()

    def test_what_an_agent_refuses_is_raised_too(self) -> None:
        _, ticker = self.agent(answers("teapot", status=418))
        with self.assertRaises(httpx.HTTPStatusError) as caught:
            self.buyer.client.proxy(ticker, prompt="x")
        self.assertEqual((caught.exception.response.status_code, caught.exception.response.text), (418, "teapot"))

    def test_a_call_that_takes_longer_than_the_timeout_raises_a_timeout(self) -> None:
        over = threading.Event()
        self.addCleanup(over.set)
        _, ticker = self.agent(lambda handler, request: (over.wait(30), None)[1])
        with self.assertRaises(httpx.TimeoutException):
            AutxClient(self.buyer.key, BASE_URL, timeout=0.3).proxy(ticker, prompt="x")

    def test_an_order_is_paid_and_its_result_can_be_fetched(self) -> None:
        agent, ticker = self.agent(answers('{"response": "done"}', content_type="application/json"), price="0.50")
        client = self.buyer.client
        agent_id = client.get_agent_by_ticker(ticker).id
        order = client.order(agent_id, "work")
        self.assertEqual((order.agent_id, order.amount_paid, order.platform_fee), (agent_id, 0.5, 0.05))
        result = completed(client, order.id)
        self.assertEqual((result.id, result.status, result.output_text, result.error), (order.id, "completed", "done", None))
        self.assertEqual((result.output_hash, result.prompt, result.payment_method), (f"sha256:{hashlib.sha256(b'done').hexdigest()}", "work", "credits"))
        self.assertIsNotNone(result.completed_at)
        self.assertEqual(agent.requests[0].json, {"prompt": "work"})

    def test_an_order_that_is_not_paid_for_is_refused_with_402(self) -> None:
        _, ticker = self.agent(answers("ok"), price="10.50")
        with self.assertRaisesRegex(httpx.HTTPStatusError, "HTTP 402: Insufficient credits") as caught:
            self.buyer.client.order(ticker, "work")
        self.assertEqual(caught.exception.response.json()["required_usd"], "10.50")

    def test_an_order_with_files_hands_them_to_the_agent(self) -> None:
        agent, ticker = self.agent(answers("read"))
        client = self.buyer.client
        order = client.order(ticker, "Extract", files=[("invoice.pdf", io.BytesIO(b"%PDF-")), ("b.bin", b"\0\1", "application/x-b")])
        self.assertEqual(completed(client, order.id).output_text, "read")
        body = agent.requests[0].body
        self.assertTrue(agent.requests[0].headers["content-type"].startswith("multipart/form-data"))
        for part in (b'name="prompt"', b"Extract", b'filename="invoice.pdf"', b"application/pdf", b"%PDF-", b'filename="b.bin"', b"application/x-b", b"\0\1"):
            self.assertIn(part, body)
        large = client.order(ticker, "Extract", files=[("large.bin", io.BytesIO(bytes(2 * 1024 * 1024)))])
        completed(client, large.id)
        self.assertGreater(len(agent.requests[1].body), 2 * 1024 * 1024)
        self.assertEqual(self.buyer.charges(), [Decimal("0.01"), Decimal("0.01")])

    def test_orders_are_listed_page_by_page_and_by_status(self) -> None:
        _, ticker = self.agent(answers("ok"))
        client = self.buyer.client
        made = [client.order(ticker, str(n)).id for n in range(3)]
        for order_id in made:
            completed(client, order_id)
        first = client.list_orders(limit=2)
        rest = client.list_orders(limit=2, cursor=first.next_cursor)
        self.assertEqual([order.id for order in [*first, *rest]], made[::-1])
        self.assertEqual((rest.next_cursor, client.list_orders(status="failed")), (None, []))

    def test_agents_are_listed_found_and_changed_by_their_owner(self) -> None:
        category = f"C{time.monotonic_ns()}"
        agent, ticker = self.agent(answers("ok"), price="2.00", category=category)
        owner = world.owner().client
        self.assertEqual([agent.ticker for agent in owner.list_agents(category=category)], [ticker])
        self.assertEqual(owner.list_agents(category=category, sort="new"), owner.list_my_agents(limit=1))
        self.assertEqual(self.buyer.client.list_my_agents(), [])
        found = self.buyer.client.get_agent_by_ticker(ticker.lower())
        self.assertEqual((found.service_price, found.endpoint_url, found.status, found.total_revenue), (2.0, agent.url, "active", 0.0))
        changed = owner.update_agent(found.id, name="Renamed", service_price="0.25")
        self.assertEqual((changed.name, changed.service_price), ("Renamed", 0.25))
        owner.update_agent(found.id, auth_tier="buyer_key")
        owner.update_provider_key(found.id, "sk-secret", provider="anthropic")
        self.buyer.client.proxy(ticker, prompt="x")
        self.assertEqual(agent.requests[0].headers["x-api-key"], "sk-secret")
        with self.assertRaisesRegex(httpx.HTTPStatusError, "HTTP 403"):
            self.buyer.client.update_agent(found.id, name="Mine")

    def test_credits_are_shown_added_and_their_movements_listed(self) -> None:
        client = self.buyer.client
        self.assertEqual(client.credits.balance(), client.get_credit_balance())
        self.assertEqual(client.credits.deposit_test("2.50"), {"balance_usd": "12.50"})
        first = client.credits.transactions(limit=1)
        rest = client.credits.transactions(limit=1, cursor=first.next_cursor)
        self.assertEqual([row["amount_usd"] for row in [*first, *rest]], ["2.50", "10.00"])
        self.assertEqual(client.credits.holds(), [])

    def test_what_a_gateway_can_not_do_yet_is_said(self) -> None:
        with self.assertRaisesRegex(httpx.HTTPStatusError, "HTTP 50[13]"):
            self.buyer.client.credits.deposit("0xabc")
        with self.assertRaisesRegex(httpx.HTTPStatusError, "HTTP 50[13]"):
            self.buyer.client.credits.withdraw("5.00", to_address="0xdef")

    def test_what_the_blocking_client_returns_can_be_awaited(self) -> None:
        _, ticker = self.agent(answers("ok"))
        client = self.buyer.client

        async def main() -> None:
            self.assertEqual((await client.credits.balance())["balance_usd"], "10.00")
            self.assertEqual(await client.list_orders(), [])
            self.assertEqual((await client.proxy(ticker, prompt="x")).text, "ok")

        asyncio.run(main())

    def test_both_clients_have_the_same_methods_with_the_same_parameters(self) -> None:
        for one, other in ((AutxClient, AutxAsyncClient), (Credits, AsyncCredits)):
            self.assertEqual(_surface(one) - {"close"}, _surface(other) - {"aclose"})
            for name in _surface(one) - {"close"}:
                mine, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (one, other))
                self.assertEqual(list(mine.values()), list(theirs.values()), name)
        self.assertEqual(str(inspect.signature(AutxClient)), str(inspect.signature(AutxAsyncClient)))

    def test_the_async_client_does_what_the_blocking_one_does(self) -> None:
        _, ticker = self.agent(answers("ok"))
        client = self.buyer.client

        async def main() -> None:
            async with self.buyer.async_client() as other:
                self.assertEqual((await other.proxy(ticker, prompt="x")).text, "ok")
                order = await other.order(ticker, "work")
                self.assertEqual(await other.get_order(completed(client, order.id).id), client.get_order(order.id))
                self.assertEqual(await other.list_orders("completed", limit=5), client.list_orders("completed", limit=5))
                self.assertEqual(await other.list_agents("Test", limit=5), client.list_agents("Test", limit=5))
                self.assertEqual(await other.get_agent_by_ticker(ticker), client.get_agent_by_ticker(ticker))
                self.assertEqual(await other.list_my_agents(), [])
                self.assertEqual(await other.get_credit_balance(), await other.credits.balance())
                self.assertEqual(await other.credits.transactions(limit=5), client.credits.transactions(limit=5))
                self.assertEqual(await other.credits.holds(limit=5), [])
                self.assertEqual(await other.credits.deposit_test("1.00"), client.credits.balance() and {"balance_usd": client.credits.balance()["balance_usd"]})
                self.assertEqual(await other.list_sessions(limit=5), [])
                for call in (other.credits.deposit("0xabc"), other.credits.withdraw("5.00"), other.get_session("ses_none"), other.close_session("ses_none"),
                             other.get_session_messages("ses_none"), other.get_session_receipt("ses_none"), other.update_agent("NOSUCH", name="x"),
                             other.update_provider_key("NOSUCH", "sk")):
                    with self.assertRaises(httpx.HTTPStatusError):
                        await call

        asyncio.run(main())


def _surface(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
