"""The task that weights tell where the file does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import models

from model_compose.components.model.spec import ModelConfig
from model_compose.compose.catalog import BuiltIn
from model_compose.compose.inference import WithWeights, told_task
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
from model_compose.config.schema import Project
from model_compose.config.spec import Catalog
from model_compose.errors import ConfigErrors, ModelLoadError
from model_compose.sources.progress import Silent


def folder_of(path: Path, architecture: str, **more: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"architectures": [architecture], **more}))
    (path / "model.safetensors").write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("T5ForConditionalGeneration", "text-generation"),
        ("BertForSequenceClassification", "text-classification"),
        ("BertModel", "text-embedding"),
        ("VisionEncoderDecoderModel", "image-to-text"),
    ],
)
def test_the_class_of_the_weights_tells_their_task(tmp_path: Path, architecture: str, task: str) -> None:
    folder = folder_of(tmp_path, architecture)
    assert told_task(folder) == told_task(folder / "model.safetensors") == task


def test_the_modules_of_sentence_transformers_tell_an_embedding(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "MPNetForMaskedLM")
    (folder / "modules.json").write_text("[]")
    assert told_task(folder) == "text-embedding"


def test_the_header_of_a_gguf_file_tells_it() -> None:
    assert told_task(models.tiny_chat()) == "text-generation"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"architectures": ["BertForMaskedLM"]}', "{"])
def test_what_tells_nothing_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelLoadError, match="does not tell its task"):
        told_task(tmp_path)


def test_a_model_that_sees_is_not_taken_for_one_of_text(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="does not tell its task"):
        told_task(folder_of(tmp_path, "LlavaForConditionalGeneration", vision_config={}))


@pytest.mark.parametrize("architecture", ["BlipForConditionalGeneration", "GitForCausalLM"])
def test_a_model_that_describes_images_is_one_of_image_to_text(tmp_path: Path, architecture: str) -> None:
    assert told_task(folder_of(tmp_path, architecture, vision_config={})) == "image-to-text"


# In a file


def project(folder: Path, catalog: Catalog, model: str = "./model") -> Project:
    path = folder / "model-compose.yml"
    path.write_text(f"component:\n  type: model\n  model: {model}\n")
    return load_project([path], Environment({}), catalog)


def task_of(found: Project) -> str | None:
    (component,) = found.components.values()
    assert isinstance(component.config, ModelConfig)
    return component.config.task


@pytest.mark.parametrize("download", [True, False])
def test_a_service_looks_at_the_weights(tmp_path: Path, download: bool) -> None:
    folder_of(tmp_path / "model", "BertForSequenceClassification")
    found = project(tmp_path, WithWeights(tmp_path, Silent if download else None))
    assert task_of(found) == "text-classification"
    assert list(found.workflows) == ["__workflow__"]


def test_a_check_looks_at_nothing_and_says_so(tmp_path: Path) -> None:
    found = project(tmp_path, BuiltIn())
    assert [note.message for note in found.warnings] == [
        "`task` is not named: the weights will tell it, and nothing more is checked here"
    ]
    path = tmp_path / "model-compose.yml"
    path.write_text(path.read_text() + "  nonsense: 1\n")
    with pytest.raises(ConfigErrors) as caught:
        load_project([path], Environment({}), BuiltIn())
    assert [error.message for error in caught.value.errors] == ["unknown field `nonsense` in the component"]


def test_weights_that_are_not_there_are_a_mistake_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        project(tmp_path, WithWeights(tmp_path, Silent))
    (error,) = caught.value.errors
    assert error.message.startswith("`task` is missing: there is no file or folder")
    assert error.place is not None
    assert error.place.line == 3
