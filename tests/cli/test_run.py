from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cli.shell import ECHO, ECHO_AND_BROKEN, Shell, eventually

from model_compose.cli.run import contents, read_input, with_uploads, write_result
from model_compose.errors import BadRequest
from model_compose.types import Blob

process = pytest.mark.process

PNG = Blob("image/png", b"\x89PNG", "a.png")


@process
def test_text_is_printed_as_it_comes_and_ends_with_a_line(shell: Shell) -> None:
    shell.write(ECHO)
    assert shell.ok("run", "-i", "chunks:3") == "0 1 2 \n"
    assert shell.ok("run", "-i", "chunks:3", "--no-stream") == "0 1 2 \n"
    assert shell.ok("run", "-i", '{"prompt": "hello"}') == "hello\n"
    assert shell.ok("run", "-i", "-", given="from stdin\n") == "from stdin\n"
    assert not shell.state.exists()


@process
def test_other_results_are_indented_json(shell: Shell) -> None:
    shell.write(ECHO.replace("text-generation", "text-embedding"))
    assert json.loads(shell.ok("run", "-i", "four"))[:2] == [4.0, 1.0]
    assert json.loads(shell.ok("run", "-i", '["a", "bb"]'))[1][0] == 2.0


@process
def test_the_whole_run_is_printed_on_demand(shell: Shell) -> None:
    shell.write(ECHO)
    run = json.loads(shell.ok("run", "--json", "-i", "hello there"))
    assert (run["status"], run["output"]) == ("completed", "hello there")
    assert run["usage"]["prompt_tokens"] == 2
    failed = shell("run", "--json", "-i", "fail")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["status"] == "failed"


@process
def test_a_result_is_written_in_one_step(shell: Shell) -> None:
    shell.write(ECHO)
    out = shell.folder / "out.txt"
    done = shell("run", "-i", "hello", "-o", "out.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "written to out.txt\n")
    assert out.read_text() == "hello"
    assert shell("run", "-i", "fail", "-o", "out.txt").returncode == 1
    assert out.read_text() == "hello"
    assert sorted(path.name for path in shell.folder.iterdir()) == ["model-compose.yml", "out.txt"]
    assert shell.ok("run", "-i", "hello", "-o", "/dev/stdout") == "hello"
    nowhere = shell("run", "-i", "hello", "-o", "no/such/folder.txt")
    assert nowhere.returncode == 2
    assert nowhere.stderr == "error: there is no folder `no/such` to write into\n"


@process
def test_a_run_that_fails_ends_with_its_error_behind_what_came(shell: Shell) -> None:
    shell.write(ECHO)
    failed = shell("run", "-i", "fail")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "error: RuntimeError: the engine is not in the mood\n"
    crashed = shell("run", "-i", "crash")
    assert crashed.returncode == 1
    assert crashed.stderr == "error: the worker of `echo` ended with exit code 9\n"


@process
def test_only_what_the_workflow_needs_is_looked_for_and_loaded(shell: Shell) -> None:
    shell.install_a_driver_without_its_library()
    shell.write(ECHO_AND_BROKEN.replace("echo\n    preload: false", "lost\n    preload: true"))
    assert shell.ok("run", "echo", "-i", "hello") == "hello\n"
    lost = shell("run", "broken", "-i", "hello")
    assert lost.returncode == 1
    assert "`no_such_library`, which is not installed" in lost.stderr


@process
def test_mistakes_of_who_types_are_told_before_anything_is_loaded(shell: Shell) -> None:
    shell.write(ECHO + "  options: {load_crashes: true}\n")
    unknown = shell("run", "ech", "-i", "hello")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: Workflow 'ech' not found.\n")
    field = shell("run", "-i", '{"promt": "hello"}')
    assert field.returncode == 2
    assert "hint: did you mean `prompt`?" in field.stderr
    assert shell("run").returncode == 2
    wrong = shell("run", "-i", '{"prompt": "hello"')
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(
        "error: the input is not JSON: Expecting ',' delimiter at line 1, column 19"
    )


@process
def test_ctrl_c_cancels_and_leaves_no_worker(shell: Shell) -> None:
    shell.write(ECHO)
    run = shell.start("run", "-i", "touch:began wait:never")
    eventually((shell.folder / "began").exists)
    workers = psutil.Process(run.process.pid).children(recursive=True)
    assert workers
    run.send(signal.SIGINT)
    assert run.ends() == 130
    assert (run.output, run.errors) == ("", "")
    assert not any(worker.is_running() for worker in workers)


@process
def test_a_reader_that_goes_away_ends_the_run_in_silence(shell: Shell) -> None:
    shell.write(ECHO)
    read, write = os.pipe()
    os.close(read)
    run = shell.start("run", "-i", "chunks:100000", output=write)
    os.close(write)
    assert run.ends() == 1
    assert run.errors == ""


def test_json_is_taken_as_it_is_and_anything_else_is_the_prompt(tmp_path: Path) -> None:
    assert read_input(None) is None
    assert read_input('{"a": 1}') == {"a": 1}
    assert read_input('["a", "b"]') == ["a", "b"]
    assert read_input('"{not a map}"') == "{not a map}"
    assert read_input("What is it?") == "What is it?"
    assert read_input("42") == "42"
    assert read_input("null") == "null"
    assert read_input("") == ""


def test_a_file_is_as_it_was_when_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.txt"
    write_result(file, b"first")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(file, b"second")
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_result(tmp_path / "link", b"text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "text"


def test_a_file_is_read_like_the_argument_itself(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text('{"a": 1}\n')
    assert read_input(f"@{file}") == {"a": 1}
    file.write_text("What is it?\nTell me.\n")
    assert read_input(f"@{file}") == "What is it?\nTell me."
    file.write_bytes(b"\xff")
    with pytest.raises(BadRequest, match="not UTF-8"):
        read_input(f"@{file}")
    with pytest.raises(BadRequest, match="No such file"):
        read_input(f"@{file}2")


@pytest.mark.parametrize("text", ['{"a": 1', "[INST] hello", " {a: 1}"])
def test_what_begins_like_json_must_be_json(text: str) -> None:
    with pytest.raises(BadRequest, match="is not JSON") as caught:
        read_input(text)
    assert caught.value.hint is not None


def test_files_become_fields_of_the_input(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG.data)
    a, b = (f"image={tmp_path / name}" for name in ("a.png", "b.png"))
    assert with_uploads(None, [a]) == {"image": PNG}
    assert with_uploads({"scale": 2}, [a, b])["image"] == [PNG, Blob("image/png", PNG.data, "b.png")]
    assert with_uploads("hello", []) == "hello"


@pytest.mark.parametrize(
    ("value", "upload", "message"),
    [
        ("hello", "image=a.png", "the input is a map"),
        (None, "a.png", "names no field and file"),
        (None, "image=", "names no field and file"),
        (None, "image=no-such-file.png", "cannot be read: No such file"),
    ],
)
def test_an_upload_that_cannot_be_is_told(value: Any, upload: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        with_uploads(value, [upload])


def test_what_is_written_where(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert contents(out, PNG) == [(out, PNG.data)]
    assert contents(out, [PNG, PNG]) == [(tmp_path / f"out-{i}.png", PNG.data) for i in (1, 2)]
    assert contents(out, "text") == [(out, b"text")]
    assert contents(out, {"image": PNG})[0][1].startswith(b'{\n  "image": "data:image/png;base64,')
