"""What is tried again and what is not, against a gateway that answers by script."""

from __future__ import annotations

import asyncio
import io
import unittest
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, Callable
from unittest import mock

import httpx

from autx_client import AutxAsyncClient, AutxClient, backoff
from autx_client.calls import get_order, proxy
from autx_client.retries import Settings
from tests.scripted_http import Answer, ScriptedHttp, Sent

ORDER = {"id": "o", "agent_id": "a", "status": "pending", "amount_paid": 1, "platform_fee": 0.1, "created_at": "2026-01-01T00:00:00Z"}
BALANCE = {"balance_usd": "1.00", "reserved_usd": "0.00"}


def balance(client: Any) -> Any:
    return client.credits.balance()


def order(client: Any) -> Any:
    return client.order("a", "work")


class Retries(unittest.TestCase):
    gateway: ScriptedHttp
    client: AutxClient
    once: AutxClient
    other: AutxAsyncClient
    loop: asyncio.AbstractEventLoop

    @classmethod
    def setUpClass(cls) -> None:
        cls.gateway = ScriptedHttp()
        cls.addClassCleanup(cls.gateway.close)
        cls.client = AutxClient("key", cls.gateway.url)
        cls.once = AutxClient("key", cls.gateway.url, max_retries=0)
        cls.loop = asyncio.new_event_loop()
        cls.addClassCleanup(cls.loop.close)
        cls.other = AutxAsyncClient("key", cls.gateway.url)
        cls.addClassCleanup(lambda: cls.loop.run_until_complete(cls.other.aclose()))  # Before the loop is closed.

    def setUp(self) -> None:
        patch = mock.patch.object(backoff, "BASE_S", 0.0)
        patch.start()
        self.addCleanup(patch.stop)

    def both(self, call: Callable[[Any], Any], *answers: Answer) -> tuple[Any, list[Sent]]:
        """What the call comes to and what was sent, by the blocking client; the other one must come to the same."""
        self.gateway.script(*answers)
        outcome = _outcome(lambda: call(self.client))
        sent = self.gateway.sent
        self.gateway.script(*answers)
        other = _outcome(lambda: self.loop.run_until_complete(call(self.other)))
        self.assertEqual((type(outcome), str(outcome) if isinstance(outcome, Exception) else outcome), (type(other), str(other) if isinstance(other, Exception) else other))
        self.assertEqual([(each.path, _stable(each)) for each in sent], [(each.path, _stable(each)) for each in self.gateway.sent])
        return outcome, sent

    def test_a_read_is_tried_again_after_429_and_502_to_504(self) -> None:
        for status in (429, 502, 503, 504):
            outcome, sent = self.both(balance, Answer(status), Answer(200, BALANCE))
            self.assertEqual((outcome, len(sent)), (BALANCE, 2), status)

    def test_no_other_refusal_is_tried_again(self) -> None:
        for status in (301, 400, 401, 402, 403, 404, 409, 422, 500, 501):
            outcome, sent = self.both(balance, Answer(status, {"detail": "because"}), Answer(200, BALANCE))
            self.assertIsInstance(outcome, httpx.HTTPStatusError)
            self.assertEqual((str(outcome), len(sent)), (f"HTTP {status}: because", 1))

    def test_a_call_gives_up_after_three_retries_and_raises_the_last_answer(self) -> None:
        outcome, sent = self.both(balance, Answer(503, {"detail": "away"}))
        self.assertEqual((str(outcome), len(sent)), ("HTTP 503: away", 4))

    def test_a_broken_connection_is_tried_again_and_a_client_without_retries_raises_it(self) -> None:
        outcome, sent = self.both(balance, Answer(0), Answer(200, BALANCE))
        self.assertEqual((outcome, len(sent)), (BALANCE, 2))
        self.gateway.script(Answer(0), Answer(200, BALANCE))
        with self.assertRaises(httpx.TransportError):
            self.once.credits.balance()

    def test_a_proxied_call_is_tried_again_only_with_an_idempotency_key(self) -> None:
        for failure in (Answer(503), Answer(0), Answer(429)):
            outcome, sent = self.both(lambda client: client.proxy("ECHO", prompt="hi"), failure, Answer(200))
            self.assertIsInstance(outcome, httpx.HTTPError)
            self.assertEqual(len(sent), 1)
            _, sent = self.both(lambda client: client.proxy("ECHO", prompt="hi", idempotency_key="mine"), failure, Answer(200))
            self.assertEqual([each.headers["idempotency-key"] for each in sent], ["mine", "mine"])

    def test_an_order_is_tried_again_with_the_same_idempotency_key_and_the_next_order_has_another(self) -> None:
        self.gateway.script(Answer(0), Answer(503), Answer(201, ORDER))
        first = self.client.order("a", "work")
        self.client.order("a", "work")
        keys = [each.headers["idempotency-key"] for each in self.gateway.sent]
        self.assertEqual((first.id, len(keys), len(set(keys[:3])), len(set(keys))), ("o", 4, 1, 2))

    def test_an_order_with_files_is_sent_again_byte_by_byte(self) -> None:
        outcome, sent = self.both(
            lambda client: client.order("a", "work", files=[("a.txt", io.BytesIO(b"content")), ("b.bin", b"\0\1", "application/x-b")]), Answer(503), Answer(201, ORDER)
        )
        first, second = sent
        self.assertEqual((outcome.amount_paid, first.path, first.body), (1.0, "/v1/orders/multipart", second.body))
        self.assertEqual(first.headers["content-type"], second.headers["content-type"])
        self.assertLess(first.body.index(b'name="prompt"'), first.body.index(b'name="files"; filename="a.txt"'))

    def test_a_file_that_can_not_be_read_twice_is_sent_once(self) -> None:
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        outcome, sent = self.both(lambda client: client.order("a", "work", files=[("a.txt", Pipe(b"content"))]), Answer(503), Answer(201, ORDER))
        self.assertIsInstance(outcome, httpx.HTTPStatusError)
        self.assertEqual(len(sent), 1)

    def test_an_order_whose_files_are_too_large_for_a_key_is_sent_once(self) -> None:
        for size, tries in ((960 * 1024 - len("work"), 2), (960 * 1024 - len("work") + 1, 1)):
            _, sent = self.both(lambda client: client.order("a", "work", files=[("a.bin", bytes(size // 2)), ("b.bin", io.BytesIO(bytes(size - size // 2)))]), Answer(503), Answer(201, ORDER))
            self.assertEqual((len(sent), "idempotency-key" in sent[0].headers), (tries, tries == 2))
            self.assertLess(len(sent[0].body), 1024 * 1024)

    def test_a_retry_waits_for_its_own_first_try_and_a_first_try_waits_for_nobody(self) -> None:
        busy = Answer(409, {"detail": "still running"}, {"retry-after": "0"})
        outcome, sent = self.both(order, Answer(0), busy, Answer(201, ORDER))
        self.assertEqual((outcome.id, len(sent)), ("o", 3))
        outcome, sent = self.both(order, busy, Answer(201, ORDER))
        self.assertEqual((str(outcome), len(sent)), ("HTTP 409: still running", 1))

    def test_the_wait_is_what_retry_after_says_and_longer_than_the_timeout_is_not_waited(self) -> None:
        def wait(header: str) -> float | None:
            return Settings("key", "http://x", 120, 3).wait_after(get_order("o"), 0, httpx.Response(429, headers={"retry-after": header}))

        self.assertEqual([wait("7"), wait("120"), wait("121"), wait("soon")], [7.0, 120.0, None, 0.0])
        in_a_minute = wait(format_datetime(datetime.now(timezone.utc) + timedelta(minutes=1), usegmt=True))
        self.assertTrue(in_a_minute is not None and 30 < in_a_minute <= 60)
        self.assertIsNone(wait(format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)))

    def test_the_backoff_grows_and_is_spread_over_its_whole_range(self) -> None:
        with mock.patch.object(backoff, "BASE_S", 0.5), mock.patch("random.uniform", lambda low, high: (low, high)):
            self.assertEqual([backoff.backoff(attempt) for attempt in (0, 1, 3, 4, 5000)], [(0, 0.5), (0, 1.0), (0, 4.0), (0, 8.0), (0, 8.0)])

    def test_a_call_that_ran_out_of_time_is_not_tried_again(self) -> None:
        settings = Settings("key", "http://x", 1, 3)
        waits = [settings.wait_after(get_order("o"), 0, error("late")) for error in (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout, httpx.ConnectTimeout)]
        self.assertEqual(waits, [None, None, None, 0.0])

    def test_a_body_and_a_prompt_together_are_refused_and_so_is_an_empty_key(self) -> None:
        with self.assertRaises(ValueError):
            proxy("ECHO", "hi", b"hi", None)
        with self.assertRaises(ValueError):
            AutxClient(api_key="")

    def test_the_key_is_not_shown_when_a_client_s_settings_are_printed(self) -> None:
        self.assertNotIn("secret", repr(Settings("secret", "http://x/", 1, 3)))


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except httpx.HTTPError as error:
        return error


def _stable(sent: Sent) -> bytes:
    """The body without its random boundary."""
    _, _, boundary = sent.headers.get("content-type", "").partition("boundary=")
    return sent.body.replace(boundary.encode(), b"--") if boundary else sent.body
