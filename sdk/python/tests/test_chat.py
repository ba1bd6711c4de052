"""Streams and sessions against a real gateway: what arrives, and what it costs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Awaitable, Callable
from unittest import mock

from autx_client import AutxClient, ChatError, Turn
from tests.agent import Hold, Say, answers
from tests.world import BASE_URL, Person, WorldTest

CENT = Decimal("0.01")


class Chat(WorldTest):
    def run_async(self, main: Callable[[], Awaitable[None]]) -> None:
        asyncio.run(asyncio.wait_for(main(), 30))

    def test_a_stream_delivers_each_part_as_it_comes_and_knows_its_cost_at_the_end(self) -> None:
        hold = Hold()
        agent, ticker = self.agent(Say("The ", hold, "Federal ", "Reserve"))

        async def main() -> None:
            async with self.buyer.client.stream(ticker, "Summarize") as stream:
                chunks = aiter(stream)
                self.assertEqual((await anext(chunks)).delta, "The ")
                self.assertEqual(stream.cost_usd, 0.0)
                hold.release()
                self.assertEqual("".join([chunk.delta async for chunk in chunks]), "Federal Reserve")
            self.assertEqual((stream.cost_usd, stream.amount_charged, stream.text), (0.01, "0.01", "The Federal Reserve"))
            self.assertEqual(self.buyer.client.get_order(stream.order_id or "").output_hash, stream.output_hash)
            session = self.buyer.client.get_session(stream.session_id or "")
            self.assertEqual((session["status"], session["consumed_usd"], session["agent_ticker"]), ("closed", "0.01", ticker))

        self.run_async(main)
        self.assertEqual(agent.requests[0].json["prompt"], "Summarize")
        self.assertEqual(self.buyer.client.credits.balance()["reserved_usd"], "0.00")
        self.assertEqual(self.buyer.charges(), [CENT])

    def test_a_session_has_many_turns_that_know_of_each_other(self) -> None:
        agent, ticker = self.agent(Say("One", "."))

        async def main() -> None:
            async with self.buyer.client.session(ticker) as session:
                self.assertEqual((session.agent["ticker"], session.credits_reserved), (ticker, "0.05"))
                for n in (1, 2):
                    turn = session.send(f"Say {n}")
                    self.assertEqual(await _read(turn), "One.")
                    self.assertEqual((turn.message_index, turn.cost_usd, session.message_count, session.session_total), (n, 0.01, n, f"0.0{n}"))
                self.assertEqual(Decimal(session.credits_remaining or "") + Decimal(session.credits_reserved or ""), Decimal("9.98"))
                self.assertEqual([row["call"] for row in await self.buyer.client.credits.holds()], ["chat"])
            messages = self.buyer.client.get_session_messages(session.session_id or "")
            self.assertEqual([(row["role"], row["content"]) for row in messages], [("user", "Say 1"), ("assistant", "One."), ("user", "Say 2"), ("assistant", "One.")])

        self.run_async(main)
        self.assertEqual(agent.requests[1].json["history"], [{"role": "user", "content": "Say 1"}, {"role": "assistant", "content": "One."}])
        self.assertEqual(self.buyer.charges(), [CENT, CENT])

    def test_with_and_for_do_the_same_without_an_event_loop(self) -> None:
        hold = Hold()
        agent, ticker = self.agent(Say("a", hold, "b"))
        with self.buyer.client.stream(ticker, "x") as stream:
            chunks = iter(stream)
            self.assertEqual(next(chunks).delta, "a")
            hold.release()
            self.assertEqual([chunk.delta for chunk in chunks], ["b"])
            self.assertEqual(stream.cost_usd, 0.01)
        agent.behave = Say("c")
        with mock.patch.object(AutxClient, "close_session") as close_session, self.buyer.client.create_session(ticker) as session:
            self.assertEqual([[chunk.delta for chunk in session.send("y")] for _ in range(2)], [["c"], ["c"]])
            with self.assertRaisesRegex(RuntimeError, "async with"):
                asyncio.run(_read(self.buyer.client.session(ticker).send("x")))
        close_session.assert_not_called()
        self.assertEqual(self.buyer.client.get_session(session.session_id or "")["status"], "closed")
        self.assertEqual(self.buyer.charges(), [CENT] * 3)

    def test_the_async_client_streams_and_closes_sessions_too(self) -> None:
        _, ticker = self.agent(Say("a", "b"))

        async def main() -> None:
            async with self.buyer.async_client() as client:
                async with client.stream(ticker, "x") as stream:
                    self.assertEqual(await _read(stream), "ab")
                async with client.create_session(ticker) as session:
                    await _read(session.send("y"))
                    await client.close_session(session.session_id or "")
                    with self.assertRaisesRegex(ChatError, "session_closed") as caught:
                        await _read(session.send("z"))
                    self.assertEqual((caught.exception.close_code, caught.exception.fatal), (4410, True))
                self.assertEqual([row["status"] for row in await client.list_sessions()], ["closed", "closed"])
                self.assertTrue((await client.get_session_receipt(session.session_id or "")).startswith(b"%PDF-"))
                await client.close_session(session.session_id or "")

        self.run_async(main)

    def test_leaving_a_loop_early_cancels_the_turn_which_costs_nothing_and_the_session_goes_on(self) -> None:
        hold = Hold()
        self.addCleanup(hold.release)
        agent, ticker = self.agent(Say("a", hold, "b"))

        async def main() -> None:
            async with self.buyer.client.session(ticker) as session:
                left = session.send("x")
                async for _ in left:
                    break
                while not left.is_cancelled:
                    await asyncio.sleep(0)
                agent.behave = Say("c")
                kept = session.send("y")
                self.assertEqual([chunk.delta async for chunk in kept], ["c"])
                self.assertEqual((left.is_cancelled, left.cost_usd, kept.is_cancelled, kept.message_index), (True, 0.0, False, 1))

        self.run_async(main)
        with self.buyer.client.session(ticker) as session:
            agent.behave = Say("a", hold, "b")
            left = session.send("x")
            for _ in left:
                break
            self.assertTrue(left.is_cancelled)
            agent.behave = Say("c")
            self.assertEqual([chunk.delta for chunk in session.send("y")], ["c"])
        self.assertEqual(self.buyer.charges(), [CENT, CENT])

    def test_leaving_a_stream_early_ends_its_session_and_costs_nothing(self) -> None:
        hold = Hold()
        self.addCleanup(hold.release)
        _, ticker = self.agent(Say("a", hold, "b"))
        with self.buyer.client.stream(ticker, "x") as stream:
            for _ in stream:
                break
        self.assertEqual((stream.cost_usd, stream.is_cancelled), (0.0, True))
        self.assertEqual(self.buyer.client.get_session(stream.session_id or "")["status"], "closed")
        self.assertEqual(self.buyer.client.credits.balance(), {**self.buyer.client.credits.balance(), "balance_usd": "10.00", "reserved_usd": "0.00"})

    def test_a_turn_that_has_ended_can_not_be_cancelled_and_stays_charged(self) -> None:
        _, ticker = self.agent(Say("a"))

        async def main() -> None:
            async with self.buyer.client.session(ticker) as session:
                turn = session.send("x")
                await _read(turn)
                await turn.cancel()
                self.assertEqual((turn.is_cancelled, turn.cost_usd), (False, 0.01))

        self.run_async(main)

    def test_the_same_message_id_repeats_the_turn_and_is_charged_once(self) -> None:
        agent, ticker = self.agent(Say("a", "b"))
        with self.buyer.client.session(ticker) as session:
            first, second = session.send("x", id="mine"), session.send("x", id="mine")
            self.assertEqual(["".join(chunk.delta for chunk in turn) for turn in (first, second)], ["ab", "ab"])
            self.assertEqual((first.order_id, first.cost_usd), (second.order_id, second.cost_usd))
        self.assertEqual((len(agent.requests), self.buyer.charges()), (1, [CENT]))

    def test_an_agent_s_failure_is_raised_after_what_came_and_the_session_goes_on(self) -> None:
        agent, ticker = self.agent(answers('data: {"delta": "half"}\n\ndata: {"error": "out of memory"}\n\n', content_type="text/event-stream"))
        with self.buyer.client.session(ticker) as session:
            turn = session.send("x")
            with self.assertRaises(ChatError) as caught:
                list(turn)
            self.assertEqual((caught.exception.code, caught.exception.fatal, caught.exception.close_code), ("agent_error", False, None))
            self.assertIn("out of memory", caught.exception.detail)
            agent.behave = Say("c")
            self.assertEqual([chunk.delta for chunk in session.send("y")], ["c"])
        self.assertEqual(self.buyer.charges(), [CENT])

    def test_a_chat_that_is_refused_says_why(self) -> None:
        _, ticker = self.agent(Say("a"))
        poor = Person()
        for client, agent, code, close_code in (
            (poor.client, ticker, "insufficient_credits", 4402),
            (poor.client, "NOSUCH", "agent_not_found", 4404),
            (AutxClient("autx_live_wrong", BASE_URL), ticker, "auth_failed", 4401),
        ):
            with self.assertRaises(ChatError) as caught:
                client.session(agent).__enter__()
            error = caught.exception
            self.assertEqual((error.code, error.close_code, error.fatal, str(error)), (code, close_code, True, f"{code}: {error.detail}"))
            if close_code == 4402:
                self.assertEqual(error.facts["required_usd"], "0.01")

    def test_what_the_gateway_can_not_be_asked_for_is_refused_without_retries(self) -> None:
        for url in (BASE_URL.replace("/api/v1", "/nowhere"), "http://"):
            with self.assertRaises(ChatError) as caught:
                AutxClient("key", url).session("MYAG").__enter__()
            self.assertEqual((caught.exception.code, caught.exception.close_code), ("connection_failed", None))

    def test_a_session_that_its_program_left_without_closing_is_gone_on_with_by_its_id(self) -> None:
        agent, ticker = self.agent(Say("a"))

        async def main() -> None:
            first = await self.buyer.client.session(ticker).__aenter__()
            await _read(first.send("x"))
            assert first._task is not None and first._connection is not None
            first._task.cancel()
            await first._connection.close()
            async with self.buyer.client.session(ticker, session_id=first.session_id) as second:
                self.assertEqual((second.session_id, second.message_count, second.session_total, second.discontinuity), (first.session_id, 1, "0.01", False))
                await _read(second.send("y"))

        self.run_async(main)
        self.assertEqual(len(agent.requests[1].json["history"]), 2)


async def _read(turn: Turn) -> str:
    return "".join([chunk.delta async for chunk in turn])
