"""Why did the engine fail, as far as it was printed?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from model_compose.drivers.vllm.printed import reason_in

TRACEBACK = """\
INFO 11-26 10:00:00 [core.py:1] hello
(EngineCore pid=71) ERROR 11-26 10:00:00 [core.py:1450] EngineCore failed to start.
(EngineCore pid=71) ERROR 11-26 10:00:00 [core.py:1450] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-26 10:00:00 [core.py:1450]   File "x.py", line 1, in run
(EngineCore pid=71) ERROR 11-26 10:00:00 [core.py:1450] ValueError: Available memory is less than requested
(EngineCore pid=71) Traceback (most recent call last):
(EngineCore pid=71) RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (TRACEBACK, "ValueError: Available memory is less than requested"),
        ("\x1b[0;36m(EngineCore pid=1)\x1b[0;0m torch.OutOfMemoryError: CUDA", "OutOfMemoryError: CUDA"),
        (
            "RuntimeError: Worker failed with error 'It's short', please check the stack trace above.",
            "It's short",
        ),
        ("nothing of interest", None),
        ("", None),
    ],
)
def test_the_last_thing_raised_that_is_a_reason(lines: str, reason: str | None) -> None:
    assert reason_in(lines.splitlines()) == reason


@pytest.mark.process
def test_what_children_print_is_remembered_and_passed_on() -> None:
    code = """
import os, subprocess, sys, time
from model_compose.drivers.vllm.printed import Printed
printed = Printed()
child = "import sys; sys.stderr.write('KeyError: of a child\\\\n')"
subprocess.run([sys.executable, "-c", child], check=True)
while printed.reason() is None:
    time.sleep(0.01)
printed.release()
sys.stderr.write("after\\n")
print(printed.reason())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True, timeout=60
    )
    assert ended.stdout == "KeyError: of a child\n"
    assert ended.stderr == "KeyError: of a child\nafter\n"
