from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.cli.shell import ECHO, ECHO_AND_BROKEN, Shell

pytestmark = pytest.mark.process

#: What takes seconds to import, or belongs to a service that runs.
HEAVY = ("torch", "transformers", "xllamacpp", "numpy", "huggingface_hub", "uvicorn", "starlette", "asyncio")


def test_a_right_file_is_summed_up(shell: Shell) -> None:
    shell.write(ECHO_AND_BROKEN)
    assert shell.ok("check") == (
        "ok: 2 components, 2 workflows\n"
        "\n"
        "COMPONENT   TYPE    TASK              DRIVER   WEIGHTS\n"
        "echo        model   text-generation   echo     -\n"
        "broken      model   text-generation   echo     -\n"
        "\n"
        "WORKFLOW         CALLS\n"
        "echo (default)   echo\n"
        "broken           broken\n"
    )
    assert shell.ok("validate") == shell.ok("check")


def test_all_mistakes_are_told_with_their_places(shell: Shell) -> None:
    shell.write(ECHO + '  max_que: 5\n  batch_size: none\n  options: {rows: "${env.ROWS}"}\n')
    check = shell("check")
    assert check.returncode == 2
    assert check.stdout == ""
    assert "error: unknown field `max_que` in component `echo`\n --> model-compose.yml:8:3\n" in check.stderr
    assert "hint: did you mean `max_queue`?" in check.stderr
    assert "`ROWS`" in check.stderr
    assert check.stderr.endswith("3 mistakes in the configuration\n")


def test_mistakes_are_data_on_demand(shell: Shell) -> None:
    shell.write(ECHO + "  max_que: 5\n")
    check = shell("check", "--json")
    assert check.returncode == 2
    told = json.loads(check.stdout)
    assert told["ok"] is False
    assert [(each["line"], each["column"], each["end_column"]) for each in told["mistakes"]] == [(8, 3, 10)]
    assert told["mistakes"][0]["hint"].startswith("did you mean `max_queue`?")
    shell.write(ECHO)
    told = json.loads(shell.ok("check", "--json"))
    assert told["ok"] is True
    assert told["components"][0]["driver"] == "echo"


def test_warnings_are_told_and_are_no_mistakes(shell: Shell) -> None:
    shell.write(
        "component:\n"
        "  type: model\n"
        "  task: text-generation\n"
        "  driver: llamacpp\n"
        "  model: {repository: owner/name, filename: a.gguf, token: '${env.NO_SUCH_TOKEN}'}\n"
    )
    check = shell("check")
    assert check.returncode == 0
    assert check.stderr.startswith("warning: ")
    assert "NO_SUCH_TOKEN" in check.stderr
    assert "owner/name:a.gguf" in check.stdout


def test_variables_and_files_are_given_before_or_after_the_command(shell: Shell) -> None:
    shell.write(ECHO.replace("id: echo", "id: ${env.NAME}"), "a.yml")
    shell.write("component: {preload: false}", "b.yml")
    shell.write("NAME=from-a-file\n", "variables")
    assert "\nnamed " in shell.ok("-f", "a.yml", "check", "-f", "b.yml", "-e", "NAME=named")
    assert "\nfrom-a-file " in shell.ok("check", "-f", "a.yml", "--env-file", "variables")
    assert "\nfrom-a-file " in shell.ok("--env-file", "variables", "-f", "a.yml", "check")
    assert "\nfirst " in shell.ok("-e", "NAME=first", "check", "-f", "a.yml", "--env-file", "variables")
    missing = shell("check", "-f", "c.yml")
    assert missing.returncode == 2
    assert missing.stderr == "error: there is no file `c.yml`\n"


@pytest.mark.parametrize("words", [["check"], ["--help"], ["up", "--help"], ["version"]])
def test_nothing_heavy_is_imported_to_look_at_a_file(shell: Shell, words: list[str]) -> None:
    shell.write(
        "component: {type: model, task: text-generation, driver: llamacpp, model: ./no-such-file.gguf}\n"
    )
    program = (
        "import sys\n"
        "from model_compose.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "model_compose" in imported
    assert not imported & {*HEAVY}
