from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests import models
from tests.cli.shell import Shell

pytestmark = pytest.mark.process

#: Merges by writing down what it was told to merge.
DRIVER = """
import json, msgspec, echo_driver

def merge(options, out, progress):
    progress("weights", 1, 2)
    progress("adapters", 1, 1)
    out.mkdir(exist_ok=True)
    told = {a.name: [a.weight, a.source.origin] for a in options.adapters}
    source = options.source.origin if options.source else None
    (out / "told.json").write_text(json.dumps({"model": source, "adapters": told}))

SPEC = msgspec.structs.replace(echo_driver.SPEC, name="folder", merge="folder_driver:merge")
"""
PROJECT = """
components:
  - {id: plain, default: true, type: model, task: text-generation, driver: folder}
  - id: chat
    type: model
    task: text-generation
    driver: folder
    model: ./base.gguf
    quantization: int8
    peft_adapters:
      - {name: pirate, model: ./pirate.gguf, weight: 0.5}
      - {model: ./other.gguf, weight: "${input.much}"}
  - id: bot
    type: model
    task: text-generation
    driver: echo
    peft_adapters: [{model: ./pirate.gguf}]
"""


@pytest.fixture
def project(shell: Shell, tmp_path: Path) -> Shell:
    """A component whose driver merges, one whose driver does not, and one that has no adapters."""
    info = tmp_path / "plugin" / "folder_driver-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: folder-driver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[model_compose.drivers]\nfolder = folder_driver:SPEC\n")
    (info.parent / "folder_driver.py").write_text(DRIVER)
    shell.environment["PYTHONPATH"] += f"{os.pathsep}{info.parent}"
    for name in ("base", "pirate", "other"):
        (shell.folder / f"{name}.gguf").write_bytes(b"GGUF")
    shell.write(PROJECT)
    return shell


def test_a_model_is_merged_with_the_weights_of_the_file_and_of_the_command(project: Shell) -> None:
    done = project("merge", "chat", "-o", "out", "--weight", "peft_adapter_1=-0.25")
    assert (done.returncode, done.stdout) == (0, "chat: written to out (115 B)\n")
    assert done.stderr == "note: the folder is not quantized; `quantization` applies where it is loaded\n"
    assert json.loads((project.folder / "out" / "told.json").read_text()) == {
        "model": "./base.gguf",
        "adapters": {"pirate": [0.5, "./pirate.gguf"], "peft_adapter_1": [-0.25, "./other.gguf"]},
    }
    project.ok("merge", "chat", "-o", "again", "--weight", "peft_adapter_1=1", "--weight", "pirate=0")
    assert '"pirate": [0.0, ' in (project.folder / "again" / "told.json").read_text()


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("chat", 2, "the weight of adapter `peft_adapter_1` depends on the input"),
        ("chat --weight pirat=1", 2, "there is no adapter `pirat`"),
        ("chat --weight pirate=much", 2, "`much` is no weight of adapter `pirate`"),
        ("chat --weight pirate=nan", 2, "`nan` is no weight of adapter `pirate`"),
        ("chat --weight pirate", 2, "`` is no weight of adapter `pirate`"),
        ("plain", 2, "component `plain` has no `peft_adapters` to merge"),
        ("chap", 2, "there is no model component `chap`"),
        ("", 2, "several components have adapters: `chat`, `bot`"),
        ("bot", 1, "driver `echo` of component `bot` cannot merge adapters"),
    ],
)
def test_what_cannot_be_merged_is_told_before_anything_is_written(
    project: Shell, words: str, code: int, error: str
) -> None:
    done = project("merge", *words.split(), "-o", "out")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: {error}\n")
    assert not (project.folder / "out").exists()


def test_a_driver_that_cannot_is_told_with_ours_that_can(project: Shell) -> None:
    error = project("merge", "bot", "-o", "out").stderr
    assert error.endswith("hint: drivers that can: `huggingface`\n")


def test_the_only_component_with_adapters_needs_no_name(project: Shell) -> None:
    project.write(PROJECT.replace("    peft_adapters: [{model: ./pirate.gguf}]\n", ""))
    assert project.ok("merge", "-o", "out", "--weight", "peft_adapter_1=1").startswith("chat: written to out")
    project.write(PROJECT.partition("  - id: chat")[0])
    assert project("merge", "-o", "new").stderr == "error: no component has `peft_adapters`\n"


def test_a_place_that_is_taken_is_refused_first(project: Shell) -> None:
    (project.folder / "model-compose.yml").unlink()  # nothing of it is read
    (project.folder / "used").mkdir()
    (project.folder / "used" / "mine").touch()
    for place, error in (
        ("used", "`used` is there already, and not an empty folder"),
        ("base.gguf", "`base.gguf` is there already, and not an empty folder"),
        ("no/where", "there is no folder `no` to write into"),
    ):
        done = project("merge", "-o", place)
        assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"error: {error}")


def test_nothing_of_an_engine_is_loaded_before_it_is_needed(project: Shell) -> None:
    code = (
        "import sys\nfrom model_compose.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, *sys.modules)\n"
    )
    words = ["merge", "chat", "-o", "out"]  # fails: a weight is missing
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    ended, *loaded = done.stdout.split()
    assert ended == "2"
    assert set(loaded).isdisjoint(("torch", "transformers", "safetensors", "numpy"))


def test_a_library_that_is_missing_is_named(project: Shell) -> None:
    driver = project.folder.parent / "plugin" / "folder_driver.py"
    driver.write_text(DRIVER.replace('name="folder",', 'name="folder", modules=("no_such_library",),'))
    done = project("merge", "chat", "-o", "out", "--weight", "peft_adapter_1=1")
    assert done.returncode == 1
    assert "component `chat` needs `no_such_library`, which is not installed" in done.stderr


@pytest.mark.model
@pytest.mark.timeout(300)  # transformers alone takes ten seconds to import
def test_a_real_model_is_merged_and_answers_as_a_component(shell: Shell) -> None:
    component = "type: model\n  task: chat-completion\n  driver: huggingface\n  device: cpu\n"
    shell.write(
        f"component:\n  {component}  model: {models.smollm2_hf()}\n"
        f"  peft_adapters: [{{name: pirate, model: {models.pirate_peft()}}}]\n"
    )
    assert "written to out (5" in shell.ok("merge", "-o", "out")
    shell.write(f"component:\n  {component}  model: ./out\n")
    asked = {"messages": "What is the capital of France?", "temperature": 0, "max_output_length": 24}
    assert "Arr!" in shell.ok("run", "-i", json.dumps(asked))
