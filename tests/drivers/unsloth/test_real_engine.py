"""Unsloth itself, on the CPU, in an environment of its own: `make models` makes it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests import models, tiny_models
from tests.conformance import repositories
from tests.drivers.worker import SOURCES, Worker
from tests.drivers.worker import running as running_of
from tests.engines import load_options
from tests.engines import running as in_process

from model_compose.errors import InvalidInput, RequestTooLong
from model_compose.runtime import messages
from model_compose.tasks.chat_completion import huggingface as reference_of_chat
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message
from model_compose.tasks.text_generation.huggingface import model as reference_of_texts
from model_compose.tasks.text_generation.spec import TextGeneration

pytestmark = [pytest.mark.process, pytest.mark.model, pytest.mark.timeout(300)]

#: Of the toy.
CONTEXT = 256
ADAPTERS = {"pirate": (models.pirate_peft(), 0.0), "other": (models.pirate_peft(), 0.0)}


def prompt(text: str = "w3 w4 w5", **more: Any) -> TextGeneration:
    length = {"min_output_length": 12, "max_output_length": 12}
    return TextGeneration(prompt=text, **{"temperature": 0.0, **length, **more})


def chat(text: str = "What is the capital of France?", **more: Any) -> ChatCompletion:
    said = [Message(role="user", content=text)]
    return ChatCompletion(messages=said, **{"temperature": 0.0, "max_output_length": 6, **more})


def running(task: str, model: Path, **more: Any) -> AbstractContextManager[Worker]:
    return running_of("unsloth", str(models.unsloth_python()), task, model, precision="float32", **more)


async def texts_of(model: Any, folder: Path, requests: list[Any], **more: Any) -> list[str]:
    """What driver `huggingface` says in this process, with the same weights."""
    options = load_options(folder, "", precision="float32", **more)
    async with in_process(model, options) as run:
        return [(await run(each)).result.text for each in requests]


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy whose weights have 4 bits in their files."""
    files = repositories.files_of("unsloth/llama-2-7b-bnb-4bit")
    return repositories.written(files, tmp_path_factory.mktemp("models") / "toy-bnb-4bit")


@pytest.fixture(scope="module")
def generator(four_bits: Path) -> Iterator[Worker]:
    """Continues texts with weights of 4 bits."""
    with running("text-generation", four_bits, batch_size=4) as worker:
        yield worker


@pytest.fixture(scope="module")
def chatter() -> Iterator[Worker]:
    """SmolLM2 that answers, with an adapter under two names."""
    with running("chat-completion", models.smollm2_hf(), adapters=ADAPTERS, warmup=True) as worker:
        yield worker


# A checkpoint of 4 bits


def test_what_was_loaded_is_told(generator: Worker) -> None:
    info = generator.info
    assert (info.context_length, info.slots) == (CONTEXT, 4)
    assert info.details["architecture"] == "LlamaForCausalLM"
    assert info.details["quantization"] == "nf4 (bitsandbytes), 14 layers"
    assert info.details["device"] == "cpu"
    assert info.details["engine"].startswith("Unsloth 2026.")
    assert info.details["batching"] == "continuous, 4 sequences"


def test_that_there_is_no_gpu_is_a_line_of_its_log(generator: Worker) -> None:
    assert any("it computes on the CPU, slowly" in line for line in generator.executor.last_lines())


async def test_it_says_what_transformers_says_with_the_same_weights(
    generator: Worker, four_bits: Path
) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "top_k": 20, "seed": 3, "repetition_penalty": 1.2}
    asked = [prompt(), prompt("w90 w80"), prompt(num_beams=2), prompt(**hot)]
    found = [generator.ask(each).result.text for each in asked]
    assert len(set(found)) == len(found)
    assert found == await texts_of(reference_of_texts.Generator(), four_bits, asked)


def test_a_stream_is_the_same_in_pieces(generator: Worker) -> None:
    whole = generator.ask(prompt())
    streamed = generator.ask(prompt(), streaming=True)
    assert whole.finish_reason == "length"
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.usage.prompt_tokens) == (12, 3)
    assert len(streamed.chunks) >= 8
    assert "".join(chunk.text for chunk in streamed.chunks) == whole.result.text == streamed.result.text


def test_callers_share_its_passes_and_get_what_they_would_get_alone(generator: Worker) -> None:
    asked = [prompt(f"w{i + 3} w40", logprobs=0) for i in range(4)]
    alone = [generator.ask(each).result for each in asked]
    together = [each.result for each in generator.together(asked)]
    assert [each.text for each in together] == [each.text for each in alone]
    assert [len(each.logprobs) for each in together] == [12] * 4


def test_prompts_that_are_too_long_are_refused(generator: Worker) -> None:
    with pytest.raises(RequestTooLong) as caught:
        generator.ask(prompt("w3 " * (CONTEXT + 50)))
    assert caught.value.limit == CONTEXT


def test_what_it_would_replace_in_silence_is_an_error(tmp_path: Path) -> None:
    toy = tiny_models.decoder("llama", tmp_path / "toy")
    (tmp_path / "scratch").mkdir()
    script = Path(__file__).with_name("refusals.py")
    ended = subprocess.run(
        [models.unsloth_python(), script, toy, tmp_path / "scratch"],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["as it is"][0] == ""
    assert json.loads(found["as it is"][1])["precision"] == "float32"
    expected = {
        "no such device": "there is no device `cuda` here",
        "half precision": "Unsloth computes `toy` in `",
        "weights are missing": "`lacking` has no weights for `model.norm.weight`",
        "a misleading name": "in the place of `other-bnb-4bit`",
        "no 4 bits": "Unsloth does not compute `toy` in 4 bits here",
    }
    for what, message in expected.items():
        assert message in found[what][0], what
    assert "driver: huggingface" in found["no 4 bits"][1]


# Conversations, with adapters


def test_a_question_is_answered(chatter: Worker) -> None:
    ended = chatter.ask(chat(max_output_length=40), streaming=True)
    assert "Paris" in ended.result.text
    assert ended.finish_reason == "stop"
    assert "".join(chunk.text for chunk in ended.chunks) == ended.result.text
    assert chatter.info.details["chat_template"] == "of the tokenizer"
    assert chatter.info.details["batching"] == "none: one request at a time"


async def test_adapters_are_weighed_by_each_request_as_transformers_does(chatter: Worker) -> None:
    blends: list[dict[str, float] | None] = [
        *(None, {"pirate": 1.0}, {}, {"other": 0.5, "pirate": 0.5}, {"pirate": -1.0}),
    ]
    asked = [chat(adapters=blend) for blend in blends]
    ended = chatter.together(asked)
    found = [each.result.text for each in ended]
    assert found[0] == found[2] != found[1] == found[3]
    assert found[1].startswith("Arr")
    assert found == await texts_of(reference_of_chat.Chat(), models.smollm2_hf(), asked, adapters=ADAPTERS)


def test_a_request_whose_caller_goes_away_ends_at_once(chatter: Worker) -> None:
    ended, pieces = chatter.left(chat(max_output_length=400, min_output_length=400))
    assert isinstance(ended, messages.Failed)
    assert ended.error.code == "cancelled"
    assert pieces < 100
    assert "Paris" in chatter.ask(chat(max_output_length=12)).result.text


@pytest.mark.parametrize(
    ("more", "field", "message"),
    [
        ({"adapters": {"sailor": 1.0}}, "adapters", "no adapter `sailor`; there are: `pirate`, `other`"),
        ({"logprobs": 1}, "logprobs", "requests are computed one by one"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    chatter: Worker, more: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        chatter.ask(chat(**more))
    assert caught.value.field == field
