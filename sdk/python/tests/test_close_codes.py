"""How a chat ends and comes back, code by code, against a gateway by script."""

from __future__ import annotations

import asyncio
import logging
import threading
import unittest
from typing import Awaitable, Callable
from unittest import mock

from autx_client import AutxAsyncClient, ChatError, Chunk, Turn, backoff, session
from autx_client.connection import RECONNECT_CODES
from tests.scripted_chat import ScriptedChat, Socket

COME_BACK = (1001, 1011, 1013, 4408, 4429, 4503)
STAY_AWAY = (1000, 1009, 4400, 4401, 4402, 4403, 4404, 4409, 4410)


class CloseCodes(unittest.TestCase):
    def setUp(self) -> None:
        patch = mock.patch.object(backoff, "BASE_S", 0.0)
        patch.start()
        self.addCleanup(patch.stop)

    def chat(self, main: Callable[[session.Session], Awaitable[None]], *scripts: Callable[[Socket], Awaitable[None]]) -> ScriptedChat:
        """Runs the session over these sockets; all of them must be used."""
        gateway = ScriptedChat(*scripts)

        async def run() -> None:
            async with gateway, AutxAsyncClient("key", gateway.url) as client:
                async with client.session("MYAG") as chat:
                    await main(chat)

        asyncio.run(asyncio.wait_for(run(), 30))
        self.assertEqual(gateway.sockets, len(scripts))
        return gateway

    def test_each_code_that_asks_for_it_resumes_the_session_and_sends_the_same_message_again(self) -> None:
        self.assertEqual(RECONNECT_CODES, {*COME_BACK, 1006})
        for code in COME_BACK:
            sent = []

            async def first(socket: Socket) -> None:
                self.assertNotIn("session_id", await socket.open())
                sent.append(await socket.hear("message"))
                await socket.say("chunk", data="half", id=sent[0]["id"])
                await socket.end(code, code="because", detail="Because")

            async def second(socket: Socket) -> None:
                self.assertEqual((await socket.open(discontinuity=True))["session_id"], "ses_1")
                sent.append(await socket.hear("message"))
                await socket.tell(sent[1], "half", " and half")
                await socket.part()

            async def main(chat: session.Session) -> None:
                turn = chat.send("Hello")
                self.assertEqual(await _read(turn), [Chunk("half"), Chunk(" and half")])
                self.assertEqual((turn.cost_usd, chat.discontinuity), (0.01, True))

            self.chat(main, first, second)
            self.assertEqual(sent[0], sent[1])

    def test_no_other_code_is_followed_by_another_try(self) -> None:
        for code in STAY_AWAY:

            async def only(socket: Socket) -> None:
                await socket.open()
                await socket.hear("message")
                await socket.end(code, code="because", detail="Because", retry_after=0, required_usd="0.01")

            async def main(chat: session.Session) -> None:
                for _ in range(2):
                    with self.assertRaises(ChatError) as caught:
                        await _read(chat.send("Hello"))
                    error = caught.exception
                    self.assertEqual((error.code, error.detail, error.close_code, error.fatal), ("because", "Because", code, True))
                    self.assertEqual((error.retry_after, error.facts["required_usd"]), (0, "0.01"))

            self.chat(main, only)

    def test_a_code_without_an_error_frame_before_it_has_a_name_too(self) -> None:
        for code, name in ((4410, "session_closed"), (1009, "prompt_too_large"), (4999, "connection_closed")):

            async def only(socket: Socket) -> None:
                await socket.open()
                await socket.hear("message")
                await socket.end(code)

            async def main(chat: session.Session) -> None:
                with self.assertRaisesRegex(ChatError, name):
                    await _read(chat.send("Hello"))

            self.chat(main, only)

    def test_the_wait_is_not_shorter_than_retry_after(self) -> None:
        async def first(socket: Socket) -> None:
            await socket.open()
            await socket.hear("message")
            await socket.end(4429, code="rate_limited", detail="Too fast", retry_after=0.125)

        async def second(socket: Socket) -> None:
            await socket.open()
            await socket.tell(await socket.hear("message"), "hi")
            await socket.part()

        async def main(chat: session.Session) -> None:
            with self.assertLogs("autx_client", "INFO") as logs:
                await _read(chat.send("Hello"))
            self.assertIn("rate_limited: Too fast; resuming in 0.125 s", logs.output[0])

        self.chat(main, first, second)

    def test_a_wait_beyond_the_time_that_sessions_are_kept_is_not_begun(self) -> None:
        async def only(socket: Socket) -> None:
            await socket.open()
            await socket.hear("message")
            await socket.end(4429, code="rate_limited", detail="Tomorrow", retry_after=121)

        async def main(chat: session.Session) -> None:
            with self.assertRaisesRegex(ChatError, "Tomorrow"):
                await _read(chat.send("Hello"))

        self.chat(main, only)

    def test_a_message_that_ends_every_socket_is_given_up_when_the_time_is_over(self) -> None:
        async def refuse(socket: Socket) -> None:
            await socket.open()
            await socket.hear("message")
            await socket.end(4503, code="agent_paused", detail="Paused", retry_after=0.3)

        async def main(chat: session.Session) -> None:
            with mock.patch.object(session, "RESUME_S", 0.5), self.assertRaisesRegex(ChatError, "Paused"):
                await _read(chat.send("Hello"))

        self.chat(main, refuse, refuse)

    def test_a_running_answer_goes_on_however_its_replay_is_cut(self) -> None:
        for replay in (["ab", "cd", "ef"], ["a", "bcdef"], ["abcdef"], ["abcd", "", "ef"]):

            async def first(socket: Socket) -> None:
                await socket.open()
                message = await socket.hear("message")
                for delta in ("abc", "d"):
                    await socket.say("chunk", data=delta, id=message["id"])
                message_ids.append(message["id"])
                await socket.end(1013)

            async def second(socket: Socket) -> None:
                await socket.open(replayed_from=0)
                await socket.tell({"id": message_ids[-1]}, *replay)
                await socket.part()

            async def main(chat: session.Session) -> None:
                turn = chat.send("Hello")
                chunks = await _read(turn)
                self.assertEqual(("".join(chunk.delta for chunk in chunks), turn.text), ("abcdef", "abcdef"))
                self.assertFalse(any(chunk.restarted for chunk in chunks))

            message_ids: list[str] = []
            self.chat(main, first, second)

    def test_an_answer_that_begins_anew_says_so_also_when_it_is_shorter(self) -> None:
        for replay, chunks in (
            (["abX", "Y"], [Chunk("abXY"[:3], restarted=True), Chunk("Y")]),
            (["ab"], [Chunk("ab", restarted=True)]),
            ([], [Chunk("", restarted=True)]),
        ):

            async def first(socket: Socket) -> None:
                await socket.open()
                await socket.say("chunk", data="abcd", id=(await socket.hear("message"))["id"])
                await socket.end(1001)

            async def second(socket: Socket) -> None:
                await socket.open(discontinuity=True)
                await socket.tell(await socket.hear("message"), *replay)
                await socket.part()

            async def main(chat: session.Session) -> None:
                turn = chat.send("Hello")
                self.assertEqual(await _read(turn), [Chunk("abcd"), *chunks])
                self.assertEqual(turn.text, "".join(replay))

            self.chat(main, first, second)

    def test_frames_about_another_message_and_unknown_frames_are_passed_over(self) -> None:
        async def only(socket: Socket) -> None:
            await socket.open(replayed_from=0)
            await socket.tell({"id": "of whoever was here before"}, "old")
            message = await socket.hear("message")
            await socket.say("chunk", data="old", id="another")
            await socket.say("error", code="agent_error", detail="Old", fatal=False, id="another")
            await socket.say("notice", code="maintenance")
            await socket.say("surprise")
            await socket.tell(message, "new")
            await socket.part()

        async def main(chat: session.Session) -> None:
            self.assertEqual(await _read(chat.send("Hello")), [Chunk("new")])

        self.chat(main, only)

    def test_an_idle_session_comes_back_when_there_is_something_to_say(self) -> None:
        async def first(socket: Socket) -> None:
            await socket.open()
            await socket.end(4408, code="idle_timeout", detail="Idle", retry_after=0)

        async def second(socket: Socket) -> None:
            await socket.open()
            await socket.tell(await socket.hear("message"), "hi")
            await socket.part()

        async def main(chat: session.Session) -> None:
            with self.assertNoLogs("autx_client", "INFO"):
                while chat._connection is not None:
                    await asyncio.sleep(0)
            self.assertEqual(await _read(chat.send("Hello")), [Chunk("hi")])

        self.chat(main, first, second)

    def test_a_session_frame_after_a_refusal_that_asks_to_come_back_is_waited_for(self) -> None:
        async def refuse(socket: Socket) -> None:
            await socket.hear("auth")
            await socket.end(1013, code="internal_error", detail="Too many", retry_after=0)

        async def second(socket: Socket) -> None:
            await socket.open()
            await socket.part()

        async def main(chat: session.Session) -> None:
            self.assertEqual(chat.session_id, "ses_1")

        self.chat(main, refuse, refuse, refuse, second)

    def test_a_frame_that_can_not_be_read_ends_the_chat_with_an_error(self) -> None:
        async def only(socket: Socket) -> None:
            await socket.open()
            await socket.hear("message")
            await socket.say("chunk")
            await socket.hear("close")

        async def main(chat: session.Session) -> None:
            with self.assertRaisesRegex(ChatError, "invalid_answer"):
                await _read(chat.send("Hello"))

        self.chat(main, only)

    def test_nothing_is_left_running_when_a_chat_is_over_and_it_may_be_closed_again(self) -> None:
        async def only(socket: Socket) -> None:
            await socket.open()
            await socket.tell(await socket.hear("message"), "hi")
            await socket.part()

        async def main(chat: session.Session) -> None:
            await _read(chat.send("Hello"))
            await chat.close()
            await chat.close()
            with self.assertRaisesRegex(ChatError, "session_closed"):
                await _read(chat.send("Hello"))

        threads = threading.active_count()
        self.chat(main, only)
        self.assertEqual(threading.active_count(), threads)

    def test_the_key_is_in_no_log(self) -> None:
        async def only(socket: Socket) -> None:
            self.assertEqual((await socket.open())["token"], "secret key")
            await socket.part()

        async def main() -> None:
            async with ScriptedChat(only) as gateway, AutxAsyncClient("secret key", gateway.url) as client:
                async with client.session("MYAG"):
                    logging.getLogger().debug("open")

        server = logging.getLogger("websockets.server")
        with self.assertLogs(level="DEBUG") as logs, mock.patch.object(server, "disabled", True):
            asyncio.run(main())
        self.assertNotIn("secret key", "".join(logs.output))


async def _read(turn: Turn) -> list[Chunk]:
    return [chunk async for chunk in turn]
