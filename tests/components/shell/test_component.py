from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.components.calling import Called, Context, component_of
from tests.compose.apps import project_of

from model_compose.errors import (
    CommandFailed,
    ConfigError,
    ConfigErrors,
    InvalidInput,
    Overloaded,
    ServiceError,
    TimedOut,
)
from model_compose.types import Blob

pytestmark = pytest.mark.process

#: Says its pid, and then waits for somebody to end it.
ENDLESS = """
component:
  type: shell
  shell: true
  command:
    - |
      echo $$ > "$1.part"; mv "$1.part" "$1"
      sleep 600 & sleep 600; echo no
    - ${input.note}
"""


def shell(*keys: str) -> str:
    return "component:\n  type: shell\n" + "".join(f"  {key}\n" for key in keys)


async def answer(folder: Path, given: Any, *keys: str) -> Any:
    async with component_of(shell(*keys), folder) as component:
        return await component.call(given)


async def pid_in(note: Path) -> int:
    """The pid that a command writes down, once it has."""
    async with asyncio.timeout(20):
        while not note.exists():
            await asyncio.sleep(0.01)
    return int(note.read_text())


async def gone(group: int) -> bool:
    """Whether a group that has been killed goes, which takes a moment."""
    async with asyncio.timeout(20):
        while not group_is_gone(group):
            await asyncio.sleep(0.01)
    return True


def group_is_gone(group: int) -> bool:
    """Whether nothing of a group runs; what nobody has buried yet does not."""
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


# What it gives


async def test_a_command_says_what_it_says_and_how_it_ended(tmp_path: Path) -> None:
    script = "'echo out; echo err >&2; exit 3'"
    result = await answer(tmp_path, {}, f"command: {script}")
    assert result == {"stdout": "out", "stderr": "err", "exit_code": 3}


async def test_its_fields_have_names_of_their_own(tmp_path: Path) -> None:
    output = "output: {a: '${stdout}', b: '${result.stderr}', c: '${exit_code}'}"
    result = await answer(tmp_path, {}, "command: [sh, -c, 'echo out; echo err >&2']", output)
    assert result == {"a": "out", "b": "err", "c": 0}


async def test_an_exit_code_is_an_error_if_the_file_says_so(tmp_path: Path) -> None:
    keys = ("command: 'echo \"bad $TOKEN\" >&2; exit 3'", "check: true", "env: {TOKEN: '${input.token}'}")
    with pytest.raises(CommandFailed) as failed:
        await answer(tmp_path, {"token": "s3cret-token"}, *keys)
    assert failed.value.message == "`__component__` ended with exit code 3: bad ***"
    assert failed.value.exit_code == 3


async def test_it_reads_texts_files_and_values(tmp_path: Path) -> None:
    keys = ("command: [cat]", "stdin: ${input.x}", "output: ${stdout}")
    async with component_of(shell(*keys), tmp_path) as component:
        assert await component.call({"x": "hello"}) == "hello"
        assert await component.call({"x": Blob("text/plain", b"bytes")}) == "bytes"
        assert json.loads(await component.call({"x": {"a": [1]}})) == {"a": [1]}
        assert await component.call({}) == ""


async def test_a_command_that_reads_nothing_of_much_ends(tmp_path: Path) -> None:
    assert await answer(tmp_path, {"x": "a" * 1_000_000}, "command: ['true']", "stdin: ${input.x}")


# What comes from requests


@pytest.mark.parametrize(
    "evil", ["; touch pwned", "$(touch pwned)", "`touch pwned`", "a\nb 'c' \"d\"", "-n", ""]
)
async def test_an_argument_stays_one_argument(tmp_path: Path, evil: str) -> None:
    list_form = ("command: [printf, '%s|', x, '${input.x}']", "output: ${stdout}")
    script = ("shell: true", "command: ['printf \"%s|\" x \"$1\"', '${input.x}']", "output: ${stdout}")
    by_env = ('command: \'printf "%s|" x "$X"\'', "env: {X: '${input.x}'}", "output: ${stdout}")
    for keys in (list_form, script, by_env):
        assert await answer(tmp_path, {"x": evil}, *keys) == f"x|{evil}|"
    assert not (tmp_path / "pwned").exists()


async def test_lists_may_be_spread_into_arguments(tmp_path: Path) -> None:
    keys = ("command: [printf, '%s|', '...${input.all}', '${input.n}']", "output: ${stdout}")
    assert await answer(tmp_path, {"all": ["a b", "c"], "n": 5}, *keys) == "a b|c|5|"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"`command\[1\]` has no value"),
        ({"x": "a\0b"}, r"`command\[1\]` has a NUL character"),
        ({"x": Blob("image/png", b"")}, r"`command\[1\]`: a file is no argument"),
        ({"x": "a" * 3_000_000}, "the arguments of `__component__` are too long"),
    ],
)
async def test_what_cannot_be_an_argument_is_refused(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await answer(tmp_path, given, "command: [echo, '${input.x}']")


_SCRIPT = "a script cannot have parts that come from a request"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("command: 'echo ${input.x}'", _SCRIPT),
        ("command: [sh, -c, 'echo ${input.x}']", _SCRIPT),
        (
            "command: [env, A=b, bash, -lc, '${input.x}']",
            _SCRIPT,
        ),
        ("command: [python3, -c, '${input.x}']", _SCRIPT),
        ("shell: true, command: ['echo ${input.x}']", _SCRIPT),
        ("command: '${input.x}'", "`command` cannot come from a request as a whole"),
        ("command: ['${input.x}', a]", "what is run cannot come from a request"),
        ("command: ['...${input.x}']", "what is run cannot come from a request"),
        ("command: [ls], env: {PATH: '${input.x}'}", "`PATH` cannot come from a request"),
        ("command: [ls], env: {'...': '${input.x}'}", "names of variables cannot come from a request"),
        ("command: [ls], working_dir: '${input.x}'", "`working_dir` cannot come from a request"),
        ("command: [ls], check: '${input.x}'", "`check` cannot come from a request"),
        ("command: ls, shell: false", "`command` is a text for a shell, and `shell` is false"),
        ("command: []", "`command` is empty"),
        ("command: [ls], output: {a: '${result[]}', b: '${stdout}'}", "`${stdout}` has no value yet"),
        ("x-free: 1", "`command` is missing in the component"),
        ("env: {A: b}", "`command` is missing in the component"),
        (
            "command: [ls], manage: {install: [a]}",
            "`manage` of the component is known, and",
        ),
        ("command: [ls], comand: [ls]", "unknown field `comand` in the component"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as told:
        project_of(f"component: {{type: shell, {keys}}}", tmp_path)
    (error,) = told.value.errors
    assert error.message.startswith(message)
    assert error.place is not None


def test_a_script_without_parts_of_a_request_is_right(tmp_path: Path) -> None:
    keys = ("[sh, -c, 'echo \"$1\"', sh, '${input.x}']", "[grep, -e, '${input.x}', --, file]", "echo hello")
    for command in keys:
        assert project_of(f"component: {{type: shell, command: {command}}}", tmp_path)


# Where it runs


async def test_it_runs_in_a_folder_inside_of_the_base(tmp_path: Path) -> None:
    (tmp_path / "base" / "inner").mkdir(parents=True)
    keys = ("base_dir: base", "working_dir: inner", "command: [pwd]", "output: ${stdout}")
    assert await answer(tmp_path, {}, *keys) == str(tmp_path.resolve() / "base" / "inner")


@pytest.mark.parametrize("folder", ["..", "/etc", "link"])
async def test_a_folder_outside_of_the_base_is_a_mistake(tmp_path: Path, folder: str) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(ConfigError, match="which is not inside of") as error:
        await answer(tmp_path, {}, f"working_dir: {folder}", "command: [pwd]")
    assert error.value.place is not None


async def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="there is no such program"):
        await answer(tmp_path, {}, "command: [no-such-program-at-all]")
    with pytest.raises(ServiceError, match="is no folder"):
        await answer(tmp_path, {}, "command: [pwd]", "working_dir: missing")


# Its end


@pytest.mark.parametrize("stubborn", [False, True])
async def test_cancelling_a_call_ends_everything_that_it_began(tmp_path: Path, stubborn: bool) -> None:
    text = ENDLESS.replace("echo $$", "trap '' TERM; echo $$") if stubborn else ENDLESS
    async with component_of(text, tmp_path) as component:
        call = asyncio.ensure_future(component.call({"note": str(tmp_path / "pid")}))
        group = await pid_in(tmp_path / "pid")
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert await gone(group)


async def test_a_timeout_ends_it(tmp_path: Path) -> None:
    async with component_of(ENDLESS + "  timeout: 1s\n", tmp_path) as component:
        with pytest.raises(TimedOut):
            await component.call({"note": str(tmp_path / "pid")})
        assert await gone(await pid_in(tmp_path / "pid"))


async def test_what_it_leaves_behind_is_ended_too(tmp_path: Path) -> None:
    keys = ("command: 'sleep 600 & echo $$'", "output: ${stdout as integer}")
    assert await gone(await answer(tmp_path, {}, *keys))


async def test_who_leaves_its_group_holds_nobody_up(tmp_path: Path) -> None:
    keys = ("command: 'setsid sleep 30 & echo $!'", "output: ${stdout as integer}")
    pid = await answer(tmp_path, {}, *keys)
    os.kill(pid, 9)  # raises if it has ended: then it was waited for


async def test_one_that_writes_too_much_is_ended(tmp_path: Path) -> None:
    for where in ("", " >&2"):
        for streaming in (False, True):
            keys = (f"command: 'yes{where}'", "max_output: 1000000")
            async with component_of(shell(*keys), tmp_path) as component:
                with pytest.raises(CommandFailed, match="wrote more than 1000000 bytes, and was ended"):
                    await _whole(component, streaming=streaming)


async def _whole(component: Called, *, streaming: bool) -> Any:
    output = await component.call({}, streaming=streaming)
    return await output.collect() if streaming else output


# Lines


async def lines_of(stream: Any) -> list[str]:
    return [line async for lines in stream.reader() for line in lines]


async def test_lines_come_one_by_one_and_make_its_result(tmp_path: Path) -> None:
    keys = ("command: 'echo one; echo err >&2; printf \"zw\\303\\266lf\"; exit 4'", "streaming: true")
    async with component_of(shell(*keys), tmp_path) as component:
        stream = await component.call({})
        assert await lines_of(stream) == ["one\n", "zwölf"]
        whole = await (await component.call({})).collect()
        assert (whole.stdout, whole.stderr, whole.exit_code) == ("one\nzwölf", "err", 4)


async def test_an_output_of_lines_is_the_text_where_nobody_wants_a_stream(tmp_path: Path) -> None:
    keys = ("command: 'echo one; echo two'", "output: '- ${result[]}'")
    async with component_of(shell(*keys), tmp_path) as component:
        assert await component.call({}) == "- one\n- two\n"
        assert await lines_of(await component.call({}, streaming=True)) == ["- one\n", "- two\n"]


async def test_a_line_comes_at_once_and_closing_the_stream_ends_the_command(
    tmp_path: Path,
) -> None:
    keys = ("command: 'echo $$; sleep 600'", "streaming: true")
    async with component_of(shell(*keys), tmp_path) as component:
        stream = await component.call({})
        ((line,),) = [await anext(stream.reader())]
        assert not group_is_gone(int(line))
        await stream.aclose()
        assert await gone(int(line))


async def test_a_stream_that_nobody_reads_ends_its_command(tmp_path: Path) -> None:
    async with component_of(ENDLESS + "  streaming: true\n", tmp_path) as component:
        stream = await component.call({"note": str(tmp_path / "pid")})
        group = await pid_in(tmp_path / "pid")
        await stream.aclose()
        assert await gone(group)


async def test_a_failure_ends_a_stream_of_lines(tmp_path: Path) -> None:
    keys = ("command: 'echo one; exit 3'", "streaming: true", "check: true")
    async with component_of(shell(*keys), tmp_path) as component:
        with pytest.raises(CommandFailed):
            await lines_of(await component.call({}))


async def test_a_slow_reader_loses_nothing(tmp_path: Path) -> None:
    keys = ("command: [seq, '30000']", "streaming: true")
    async with component_of(shell(*keys), tmp_path) as component:
        seen: list[str] = []
        async for lines in (await component.call({})).reader():
            seen += lines
            await asyncio.sleep(0.01)
    assert seen == [f"{i}\n" for i in range(1, 30001)]


# At once


async def test_no_more_run_at_once_than_the_file_says(tmp_path: Path) -> None:
    script = "'mkdir busy || exit 9; sleep 0.05; rmdir busy'"
    keys = ("max_concurrent_count: 1", f"command: {script}", "output: ${exit_code}")
    async with component_of(shell(*keys), tmp_path) as component:
        assert await asyncio.gather(*(component.call({}) for _ in range(5))) == [0] * 5


async def test_the_queue_is_bounded_for_runs_that_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_compose.components.places.MOST_WAITING", 1)
    async with component_of(ENDLESS + "  max_concurrent_count: 1\n", tmp_path) as component:
        given = {"note": str(tmp_path / "pid")}
        calls = [asyncio.ensure_future(component.call(given)) for _ in range(2)]
        await pid_in(tmp_path / "pid")
        with pytest.raises(Overloaded):
            await component.call(given)
        begun = Context()
        begun.admitted = True
        calls.append(asyncio.ensure_future(_waits(component, given, begun)))
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        assert await asyncio.wait(calls)


async def _waits(component: Called, given: Any, context: Context) -> Any:
    return await component.call(given, context=context)
