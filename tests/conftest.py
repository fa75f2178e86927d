"""What all tests share: the echo driver, and the rule that nothing is skipped that is not on the list."""

from __future__ import annotations

import functools
import gc
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import httpcore2
import hypothesis
import pytest

#: Where the echo driver is found by its entry point, here and in every process that a test starts.
PLUGINS = str(Path(__file__).parent / "plugins" / "echo")
sys.path.insert(0, PLUGINS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PLUGINS, os.environ.get("PYTHONPATH")]))

# Threads of OpenMP that wait for each other spin, and take the CPU from others that compute meanwhile.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Every HTTP client reads the certificates of the machine, which takes 70 ms: here they are read once.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# What CI runs is the same every time; HYPOTHESIS_PROFILE=explore looks for what nobody has seen yet.
# Neither looks at the clock: a machine that does other things at the same time is no failure.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a module in which no test can have the mark that is asked for: it may load a library."""
    asked = re.fullmatch(r"(\w+)( and not \w+)?", config.option.markexpr or "")
    if asked is None or collection_path.suffix != ".py" or asked[1] == "not":
        return None
    return True if f"mark.{asked[1]}" not in collection_path.read_text() else None


def pytest_collection_finish() -> None:
    """Let the collector of garbage leave alone what lives as long as the run: it is torch, above all."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Count skips where the results come together, and not in the processes that run tests for it."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(ALLOWED_SKIPS.read_text().splitlines()))


class Skips:
    """Fails a run that skipped a test which is not allowed to be skipped."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._allowed = tuple(name for line in lines if (name := line.partition("#")[0].strip()))
        self._forbidden: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not report.nodeid.startswith(self._allowed or ("\0",)):
            self._forbidden.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._forbidden:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self._forbidden:
            terminalreporter.write_line(
                f"SKIPPED without leave: {name} is not in {ALLOWED_SKIPS.name}", red=True
            )
