"""Does every variable come from the strongest place that sets it, and know which?"""

from __future__ import annotations

from pathlib import Path

import pytest

from model_compose.config.environment import Environment, Value, is_secret
from model_compose.errors import ConfigErrors
from model_compose.frames import render


def collect(
    cwd: Path, *files: Path, e: tuple[str, ...] = (), process: dict[str, str] | None = None
) -> Environment:
    return Environment.collect(cwd, files, e, process or {})


def mistakes(cwd: Path, *files: Path, e: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    with pytest.raises(ConfigErrors) as raised:
        collect(cwd, *files, e=e)
    return [(error.message, str(error.place)) for error in raised.value.errors]


def test_the_file_of_the_folder_is_read_when_none_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# ports\n\nPORT=8080\n")
    assert collect(tmp_path).get("PORT") == Value("8080", ".env:3")


def test_a_folder_without_a_file_has_no_variables(tmp_path: Path) -> None:
    assert list(collect(tmp_path).names()) == []


def test_a_virtual_environment_called_env_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert list(collect(tmp_path).names()) == []


def test_named_files_replace_that_of_the_folder_and_the_later_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=0\nZ=0\n")
    first, second = tmp_path / "first.env", tmp_path / "second.env"
    first.write_text("A=1\nB=1\n")
    second.write_text("B=2\n")
    env = collect(tmp_path, first, second)
    assert env.get("A") == Value("1", f"{first}:1")
    assert env.get("B") == Value("2", f"{second}:1")
    assert env.get("Z") is None


def test_the_process_overrides_files_and_e_overrides_all(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\nC=file\n")
    env = collect(tmp_path, process={"B": "process", "C": "process"}, e=("C=one", "C=a=b", "D="))
    assert [env.get(name) for name in "ABCD"] == [
        Value("file", ".env:1"),
        Value("process", "the environment"),
        Value("a=b", "`-e`"),
        Value("", "`-e`"),
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("A=plain", "plain"),
        ("export A=plain", "plain"),
        ("A = spaced  # comment", "spaced"),
        ("A=a#b", "a#b"),
        ("A='single # $HOME'", "single # $HOME"),
        ('A="two\\nlines"', "two\nlines"),
        ("A='two\nlines'", "two\nlines"),
        ("A=$HOME/${B}", "$HOME/${B}"),
        ('A="$HOME/${B}"', "$HOME/${B}"),
        ("A=", ""),
        ("A=한국어", "한국어"),
    ],
)
def test_values_are_read_as_they_stand_and_dollars_stay(tmp_path: Path, line: str, text: str) -> None:
    (tmp_path / ".env").write_text(f"B=b\n{line}\n", encoding="utf-8")
    assert collect(tmp_path).get("A") == Value(text, ".env:2")


def test_lines_are_counted_over_values_of_several_lines(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A='1\r\n2'\r\n\r\n  \r\n  B=2\r\n")
    assert collect(tmp_path).get("B") == Value("2", ".env:5")


def test_all_mistakes_of_files_and_overrides_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nB\n\nC='open\n=x\n")
    assert mistakes(tmp_path, tmp_path / "a.env", tmp_path / "no.env", e=("FOO", "=x", "OK=1")) == [
        (f"there is no file `{tmp_path / 'no.env'}`", "None"),
        ("`-e FOO` has no value", "None"),
        ("`-e =...` names no variable", "None"),
        ("`B` has no value", f"{tmp_path / 'a.env'}:2:1"),
        ("this line sets no variable", f"{tmp_path / 'a.env'}:4:1"),
        ("this line sets no variable", f"{tmp_path / 'a.env'}:5:1"),
    ]


def test_a_file_that_is_not_utf_8_is_one_mistake(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=caf\xe9\n")
    assert mistakes(tmp_path) == [("`.env` is not UTF-8: byte `0xe9` at offset 5", ".env:1:6")]


def test_mistakes_do_not_show_what_may_be_a_secret(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TOKEN='hf_secret\n")
    with pytest.raises(ConfigErrors) as raised:
        collect(tmp_path)
    assert "hf_secret" not in render(raised.value)


def test_the_repr_of_a_value_does_not_show_it() -> None:
    assert "hunter2" not in repr(Environment({"A": Value("hunter2", ".env:1")}))


@pytest.mark.parametrize(
    ("name", "near"), [("HF_TOKN", "HF_TOKEN"), ("hf_token", "HF_TOKEN"), ("prot", "port"), ("X", None)]
)
def test_the_nearest_name_is_found_whatever_its_case(name: str, near: str | None) -> None:
    env = Environment({"HF_TOKEN": Value("", "-"), "port": Value("", "-")})
    assert env.near(name) == near


@pytest.mark.parametrize("name", ["HF_TOKEN", "openai_api_key", "DB_PASSWORD", "Secret", "BASIC_AUTH"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["PORT", "HOME", "MODEL"])
def test_names_of_other_things_are_no_secrets(name: str) -> None:
    assert not is_secret(name)
