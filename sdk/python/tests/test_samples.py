"""The samples of the README, as a reader would run them: only the URL, the key and
the made-up ids are replaced."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import pathlib
import re
import tempfile
from typing import Any, Coroutine

import httpx

from tests.agent import answers
from tests.world import BASE_URL, WorldTest

README = pathlib.Path(__file__).parent.parent / "README.md"


class Samples(WorldTest):
    def test_every_sample_of_the_readme_runs(self) -> None:
        summ, _ = self.agent(answers("It is fine."), ticker="SUMM", price="0.00")
        self.agent(answers("It is fine."), ticker="MYAG")
        with self.buyer.client.session("MYAG") as session:
            pass
        real = {
            'base_url="https://..../api/v1"': f"base_url={BASE_URL!r}",
            'AutxClient(api_key="autx_live_...")': f"AutxClient(api_key={self.buyer.key!r}, base_url={BASE_URL!r})",
            'AutxAsyncClient(api_key="autx_live_...")': f"AutxAsyncClient(api_key={self.buyer.key!r}, base_url={BASE_URL!r})",
            '"autx_live_..."': repr(self.buyer.key),
            "<uuid>": self.buyer.client.get_agent_by_ticker("SUMM").id,
            "ses_abc123": session.session_id or "",
        }
        self.enter_folder()
        pathlib.Path("invoice.pdf").write_bytes(b"%PDF-")
        space: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            for sample in re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE):
                for made_up, known in real.items():
                    sample = sample.replace(made_up, known)
                self.run_sample(sample, space)
        # By the async call, the stream, and the sessions of both kinds.
        self.assertEqual(printed.getvalue().count("It is fine."), 4)
        self.assertIn("\nCost: $0.0100\n", printed.getvalue())
        self.assertLessEqual({"balance_usd", "reserved_usd"}, space["balance"].keys())
        self.assertEqual(space["order"].agent_id, real["<uuid>"])

    def enter_folder(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)

    def run_sample(self, sample: str, space: dict[str, Any]) -> None:
        """Statement by statement. `await` may stand outside of a function, as in a notebook."""
        for statement in ast.parse(sample).body:
            code = compile(ast.Module([statement], []), str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            try:
                result = eval(code, space)
                if inspect.iscoroutine(result):
                    asyncio.run(_finish(result))
            except httpx.HTTPStatusError as error:
                # This gateway can't send money out yet.
                self.assertEqual((error.response.status_code, "withdraw" in ast.unparse(statement)), (501, True))
        if "async def main" in sample and "asyncio.run" not in sample:
            asyncio.run(space["main"]())


async def _finish(sample: Coroutine[Any, Any, Any]) -> None:
    await sample
