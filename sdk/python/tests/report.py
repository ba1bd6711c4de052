"""Runs all tests and prints one JSON line for each: its name, and what failed.

    AUTX_TEST_URL=http://127.0.0.1:8080 python3 -m tests.report [module …]
"""

from __future__ import annotations

import json
import sys
import unittest
from typing import Any


class Report(unittest.TestResult):
    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._failures: list[str] = []

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._tell(test, err)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._tell(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._tell(subtest, err)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        _print({"test": test.id(), "failures": self._failures})

    def _tell(self, test: unittest.TestCase, err: Any) -> None:
        text = f"{test}\n{self._exc_info_to_string(err, test)}"  # type: ignore[attr-defined]
        if hasattr(self, "_failures"):
            self._failures.append(text)
        else:
            # A module that can't be loaded, or a class that can't be set up.
            _print({"test": str(test), "failures": [text]})


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    names = sys.argv[1:]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames([f"tests.{name}" for name in names]) if names else loader.discover("tests", top_level_dir=".")
    result = suite.run(Report())
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)
