"""Sockets that are cut on their way to a real gateway: nothing is lost, nothing
is doubled, and each turn is charged once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from unittest import mock

from autx_client import AutxAsyncClient, AutxClient, ChatError, Turn, backoff, session
from tests.agent import Hold, Say
from tests.cut_proxy import CutProxy
from tests.world import GATEWAY, WorldTest

CENT = Decimal("0.01")


class Reconnect(WorldTest):
    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(backoff, "BASE_S", 0.02)
        patch.start()
        self.addCleanup(patch.stop)
        self.proxy = CutProxy(GATEWAY)
        self.addCleanup(self.proxy.close)
        self.client = AutxClient(self.buyer.key, f"{self.proxy.url}/v1")

    def test_a_socket_that_is_cut_again_and_again_in_a_turn_loses_and_doubles_nothing(self) -> None:
        holds = [Hold() for _ in range(3)]
        agent, ticker = self.agent(Say("One ", holds[0], "two ", holds[1], "three ", holds[2], "four"))
        with self.client.session(ticker) as chat:
            turn = chat.send("Count")
            deltas = []
            for chunk in turn:
                deltas.append(chunk.delta)
                if len(deltas) <= len(holds):
                    self.proxy.cut()
                    self.proxy.tried(len(deltas) + 1)
                    holds[len(deltas) - 1].release()
            self.assertEqual((deltas, turn.text), (["One ", "two ", "three ", "four"], "One two three four"))
            self.assertEqual((turn.cost_usd, chat.session_total, chat.message_count), (0.01, "0.01", 1))
        self.assertEqual((len(agent.requests), self.buyer.charges()), (1, [CENT]))

    def test_a_turn_that_ends_while_its_client_is_away_is_told_when_it_is_back(self) -> None:
        hold = Hold()
        agent, ticker = self.agent(Say("One ", hold, "two"))
        with self.client.stream(ticker, "Count") as stream:
            chunks = iter(stream)
            self.assertEqual(next(chunks).delta, "One ")
            self.proxy.sever()
            hold.release()
            while self.buyer.charges() == []:
                pass
            self.proxy.restore()
            self.assertEqual([chunk.delta for chunk in chunks], ["two"])
            self.assertEqual(stream.cost_usd, 0.01)
        self.assertEqual((len(agent.requests), self.buyer.charges()), (1, [CENT]))

    def test_a_message_that_never_arrived_is_sent_again_once_its_client_is_back(self) -> None:
        agent, ticker = self.agent(Say("One"))
        with self.client.session(ticker) as chat:
            self.proxy.sever()
            self.proxy.tried(2)
            turn = chat.send("Count")
            chunks = iter(turn)
            self.proxy.restore()
            self.assertEqual([chunk.delta for chunk in chunks], ["One"])
        self.assertEqual((len(agent.requests), self.buyer.charges()), (1, [CENT]))

    def test_a_session_that_is_cut_between_turns_goes_on_by_itself_and_remembers(self) -> None:
        agent, ticker = self.agent(Say("One"))
        with self.client.session(ticker) as chat:
            first = chat.session_id
            _read(chat.send("a"))
            self.proxy.cut()
            self.proxy.tried(2)
            _read(chat.send("b"))
            self.assertEqual((chat.session_id, chat.message_count, chat.discontinuity), (first, 2, False))
        self.assertEqual(len(agent.requests[1].json["history"]), 2)
        self.assertEqual(self.buyer.client.get_session(first or "")["status"], "closed")

    def test_a_turn_that_was_left_while_its_client_was_away_is_cancelled_when_it_is_back(self) -> None:
        hold = Hold()
        self.addCleanup(hold.release)
        agent, ticker = self.agent(Say("One ", hold, "two"))
        with self.client.session(ticker) as chat, mock.patch.object(session, "_PATIENCE_S", 0.05):
            left = chat.send("Count")
            for _ in left:
                self.proxy.sever()
                break
            agent.behave = Say("Three")
            self.proxy.restore()
            self.assertEqual(_read(chat.send("Again")), "Three")
            self.assertEqual((left.is_cancelled, left.cost_usd, _read(left)), (True, 0.0, ""))
        self.assertEqual(self.buyer.charges(), [CENT])

    def test_a_session_that_is_left_while_its_client_is_away_is_closed_over_rest(self) -> None:
        _, ticker = self.agent(Say("One"))

        async def main() -> None:
            async with AutxAsyncClient(self.buyer.key, f"{self.proxy.url}/v1") as client:
                async with client.session(ticker) as chat:
                    with mock.patch.object(backoff, "BASE_S", 60.0), mock.patch.object(backoff, "CAP_S", 60.0):
                        self.proxy.cut()
                        while chat._connection is not None:
                            await asyncio.sleep(0)
                self.assertEqual((await client.get_session(chat.session_id or ""))["status"], "closed")

        asyncio.run(main())

    def test_a_gateway_that_stays_away_ends_the_turn_and_the_session(self) -> None:
        hold = Hold()
        self.addCleanup(hold.release)
        _, ticker = self.agent(Say("One ", hold, "two"))
        chat = self.client.session(ticker)
        with chat, mock.patch.object(session, "RESUME_S", 0.2):
            with self.assertRaises(ChatError) as caught:
                for _ in chat.send("Count"):
                    self.proxy.sever()
            self.assertTrue(caught.exception.fatal)
            with self.assertRaises(ChatError) as again:
                _read(chat.send("Count"))
            self.assertIs(again.exception, caught.exception)
            self.proxy.restore()

    def test_a_gateway_that_is_away_when_a_session_begins_is_tried_max_retries_times_more(self) -> None:
        self.proxy.sever()
        with self.assertRaises(ChatError) as caught:
            self.client.session("MYAG").__enter__()
        self.assertEqual((caught.exception.code, self.proxy.connections), ("connection_failed", 4))


def _read(turn: Turn) -> str:
    return "".join(chunk.delta for chunk in turn)
