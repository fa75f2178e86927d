from __future__ import annotations

import subprocess

import pytest

from model_compose.components.http_server.commands import Secrets, commands_of, joined_options, shown

VLLM = """\
eval "$(pyenv init -)" &&
pyenv activate vllm &&
python -m vllm.entrypoints.openai.api_server
  --model Qwen/Qwen2-7B-Instruct
  --port 8000
"""


def test_options_on_lines_of_their_own_go_on_with_the_line_before_them() -> None:
    assert joined_options(VLLM) == (
        'eval "$(pyenv init -)" &&\n'
        "pyenv activate vllm &&\n"
        "python -m vllm.entrypoints.openai.api_server --model Qwen/Qwen2-7B-Instruct --port 8000\n"
    )


@pytest.mark.parametrize(
    "script",
    [
        "python -m it \\\n  --port 1",
        "# as in\n--port 1",
        "it # with\n  --port 1",
        "cat <<END\nfirst\n--port 1\nEND",
        "cat <<-'END'\n\t--port 1\n\tEND\nit",
        "echo 'first\n--port 1'",
        'echo "first\n--port 1"',
        "it\n\n--port 1",
        "--port 1",
        "it\n-p 1",
        "it\nanother --port 1",
    ],
)
def test_what_a_shell_reads_otherwise_stays_as_it_is(script: str) -> None:
    assert joined_options(script) == script


@pytest.mark.parametrize(
    ("script", "joined"),
    [
        ("echo a#b\n--c", "echo a#b --c"),
        ("cat <<END\nx\nEND\nit\n --c", "cat <<END\nx\nEND\nit --c"),
        ("echo 'a\nb'\n--c", "echo 'a\nb' --c"),
        ("echo it\\'s\n--c", "echo it\\'s --c"),
    ],
)
def test_a_line_that_only_looks_like_one_of_those_is_joined(script: str, joined: str) -> None:
    assert joined_options(script) == joined


def test_a_shell_gets_the_options() -> None:
    (command,) = commands_of(["bash", "-c", "printf '%s.'\n  --model 'a b'\n  --port 1"])
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout == "--model.a b.--port.1."
    )


def test_a_text_is_for_sh_and_lists_are_programs() -> None:
    assert commands_of("echo $HOME | cat") == (("sh", "-c", "echo $HOME | cat"),)
    assert commands_of(["echo", "$HOME"]) == (("echo", "$HOME"),)
    assert commands_of([["a", "b"], ["c"]]) == (("a", "b"), ("c",))
    assert commands_of(["python", "-c", "x\n--y"]) == (("python", "-c", "x\n--y"),)
    assert commands_of(None) == commands_of([]) == ()


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "--api-key", "sk-123", "--port", "1"],
        ["serve", "--api-key=sk-123"],
        ["sh", "-c", "HF_TOKEN=sk-123 serve"],
        ["sh", "-c", "export HF_TOKEN='sk-123'; serve"],
        ["pip", "install", "--index-url", "https://me:sk-123@example.org/simple"],
        ["serve", "sk-123"],
    ],
)
def test_no_secret_is_shown(command: list[str]) -> None:
    text = Secrets({"MY_API_KEY": "sk-123", "PORT": "1"}, {}).shown(tuple(command))
    assert "sk-123" not in text
    assert "***" in text


def test_what_is_no_secret_is_shown() -> None:
    assert (
        shown(("vllm", "serve", "a b", "--max-model-len", "2048")) == "vllm serve 'a b' --max-model-len 2048"
    )
    assert Secrets({"PORT": "8000", "KEY": "1"}, {}).hidden(b"port 8000, key 1") == b"port 8000, key 1"
    assert Secrets({"A_KEY": "secret1", "B_KEY": "secret1+2"}, {}).hidden(b"secret1+2") == b"***"
