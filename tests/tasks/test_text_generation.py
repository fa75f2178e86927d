"""text-generation by every engine that does it, on a toy. See scripts/tiny_gguf.py."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from tests.engines import Collector, Engine, idle, running, slots, unseen

from model_compose.drivers.contract import LoadOptions
from model_compose.errors import Cancelled, InvalidInput, RequestTooLong
from model_compose.tasks.generation import JsonSchema, ResponseFormat
from model_compose.tasks.text_generation.llamacpp import Generator
from model_compose.tasks.text_generation.spec import TextGeneration

#: An answer of the toy: 24 words and the token that ends it.
ANSWER_TOKENS = 25
#: With this word in its prompt the toy never ends.
ENDLESS = "a long"


@pytest.fixture(params=["llamacpp", "huggingface"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param, "text-generation")


def options(**more: Any) -> LoadOptions:
    return Engine("llamacpp", "text-generation").options(**more)


def request(prompt: str = "salve", **more: Any) -> TextGeneration:
    return TextGeneration(prompt=prompt, **{"temperature": 0.0, **more})


async def test_the_answer_is_the_completion_alone_with_its_cost_and_reason(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request("salve"))
    assert "salve" not in outcome.result.text
    assert len(outcome.result.text.split()) == ANSWER_TOKENS - 1
    assert outcome.finish_reason == outcome.result.finish_reason == "stop"
    assert outcome.usage.completion_tokens == ANSWER_TOKENS
    assert outcome.usage.prompt_tokens > 0
    assert outcome.usage == outcome.result.usage


async def test_a_stream_is_the_same_text_in_pieces(engine: Engine) -> None:
    sink = Collector()
    async with running(engine.make(), engine.options()) as run:
        whole = await run(request())
        streamed = await run(request(), sink)
    assert len(sink.chunks) >= ANSWER_TOKENS - 1
    assert "".join(chunk.text for chunk in sink.chunks) == whole.result.text == streamed.result.text


async def test_max_output_length_ends_the_answer_and_says_so(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request(max_output_length=5))
    assert outcome.usage.completion_tokens == 5
    assert outcome.finish_reason == "length"


@pytest.mark.parametrize("stop", ["{word}", ("never there",)])
async def test_a_stop_sequence_ends_the_answer_and_is_not_part_of_it(engine: Engine, stop: Any) -> None:
    async with running(engine.make(), engine.options()) as run:
        words = (await run(request())).result.text.split()
        last = max(words.index(word) for word in words)  # the latest word that did not occur before
        stops = stop.format(word=words[last]) if isinstance(stop, str) else (stop[0], words[last])
        outcome = await run(request(stop_sequences=stops))
    assert last > 0
    assert outcome.result.text.split() == words[:last]
    assert outcome.finish_reason == "stop"


async def test_the_same_seed_gives_the_same_answer_and_another_seed_another(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        texts = [
            (await run(request(temperature=1.5, top_k=0, top_p=1.0, seed=s))).result.text for s in (1, 1, 2)
        ]
    assert texts[0] == texts[1] != texts[2]


async def test_the_largest_seed_gives_the_same_answers_for_several_sequences_too(engine: Engine) -> None:
    more: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "num_return_sequences": 3}
    more["seed"] = 2**32 - 2
    async with running(engine.make(), engine.options()) as run:
        first, second = [[c.text for c in (await run(request(**more))).result] for _ in range(2)]
    assert first == second


@pytest.mark.parametrize("more", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
async def test_a_filter_that_leaves_one_token_is_greedy_however_hot(
    engine: Engine, more: dict[str, Any]
) -> None:
    hot: dict[str, Any] = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "seed": 1}
    async with running(engine.make(), engine.options()) as run:
        greedy = await run(request())
        free = await run(request(**hot))
        filtered = await run(request(**{**hot, **more}))
    assert filtered.result.text == greedy.result.text != free.result.text


@pytest.mark.parametrize("more", [{"do_sample": False, "temperature": 2.0}, {"temperature": 1e-38}])
async def test_greedy_is_asked_for_in_several_ways(engine: Engine, more: dict[str, Any]) -> None:
    async with running(engine.make(), engine.options()) as run:
        greedy = await run(request())
        outcome = await run(request(**more, seed=5))
    assert outcome.result.text == greedy.result.text


async def test_callers_share_the_engine_without_changing_each_others_answers(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        alone = [(await run(request(f"salve {i}"))).result.text for i in range(4)]
        together = await asyncio.gather(*(run(request(f"salve {i}")) for i in range(4)))
    assert [outcome.result.text for outcome in together] == alone


async def test_several_sequences_are_a_list_and_all_are_counted(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request(num_return_sequences=3, temperature=1.5, seed=1, max_output_length=6))
    texts = [completion.text for completion in outcome.result]
    assert len(texts) == 3
    assert len(set(texts)) > 1
    assert outcome.usage.completion_tokens == sum(c.usage.completion_tokens for c in outcome.result)


async def test_several_sequences_of_greedy_decoding_are_refused(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        with pytest.raises(InvalidInput, match="would all be the same") as caught:
            await run(request(num_return_sequences=2))
    assert caught.value.field == "num_return_sequences"


async def test_penalties_change_the_answer(engine: Engine) -> None:
    penalties: list[dict[str, Any]] = [
        {"repetition_penalty": 9.0},
        {"frequency_penalty": 2.0},
        {"presence_penalty": 2.0},
    ]
    async with running(engine.make(), engine.options()) as run:
        plain = (await run(request(max_output_length=20))).result.text
        changed = [(await run(request(max_output_length=20, **penalty))).result.text for penalty in penalties]
    assert all(text != plain for text in changed)


async def test_log_probabilities_come_with_each_token_and_its_rivals(engine: Engine) -> None:
    sink = Collector()
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request(logprobs=2, max_output_length=3), sink)
    assert len(outcome.result.logprobs) == 3
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 2 for entry in outcome.result.logprobs)
    assert [entry for chunk in sink.chunks for entry in chunk.logprobs or ()] == outcome.result.logprobs


async def test_log_probabilities_may_come_without_rivals(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request(logprobs=0, max_output_length=3))
    assert [entry["top_logprobs"] for entry in outcome.result.logprobs] == [[], [], []]


SCHEMA = {"enum": ["yes", "no"]}


async def test_a_json_schema_forces_the_output() -> None:
    form = ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=SCHEMA))
    async with running(Generator(), options()) as run:
        outcome = await run(request(response_format=form, max_output_length=200))
    assert json.loads(outcome.result.text) in ("yes", "no")


@pytest.mark.parametrize(
    "form",
    [{"type": "json_schema"}, {"type": "json_object", "json_schema": {"schema": {}}}],
)
def test_a_form_without_its_schema_or_a_schema_without_its_form_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match="needs a `json_schema`"):
        msgspec.convert({"prompt": "salve", "response_format": form}, TextGeneration)


async def test_a_wrong_json_schema_is_the_callers_mistake() -> None:
    form = ResponseFormat(type="json_schema", json_schema=JsonSchema(schema={"type": "objekt"}))
    async with running(Generator(), options()) as run:
        with pytest.raises(InvalidInput, match="unrecognized type objekt") as caught:
            await run(request(response_format=form))
    assert caught.value.field == "response_format"


# Length


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(engine: Engine) -> None:
    async with running(engine.make(), engine.options(context_length=256)) as run:
        with pytest.raises(RequestTooLong) as caught:
            await run(request("salve " * 500))
    assert caught.value.limit == 256
    assert caught.value.size > 500
    assert str(caught.value.size) in str(caught.value)
    assert "256" in str(caught.value)


async def test_max_input_length_is_a_limit_with_both_numbers(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        with pytest.raises(RequestTooLong) as caught:
            await run(request("salve salve salve salve", max_input_length=3))
        assert (await run(request("salve", max_input_length=100))).finish_reason == "stop"
    assert caught.value.limit == 3


async def test_truncate_keeps_the_end_of_a_prompt(engine: Engine) -> None:
    async with running(engine.make(), engine.options(context_length=256)) as run:
        outcome = await run(request("salve " * 500, truncate=True, max_output_length=4))
        short = await run(
            request("salve salve salve", truncate=True, max_input_length=4, max_output_length=2)
        )
    assert outcome.usage.prompt_tokens == 252
    assert short.usage.prompt_tokens == 4


async def test_an_output_ends_where_the_context_ends(engine: Engine) -> None:
    async with running(engine.make(), engine.options(context_length=256)) as run:
        outcome = await run(request(ENDLESS, max_output_length=32_768))
    assert outcome.finish_reason == "length"
    assert outcome.usage.prompt_tokens + outcome.usage.completion_tokens <= 257


# Warming up


@pytest.mark.parametrize("warmup", [True, False])
async def test_warming_up_computes_before_the_first_request(engine: Engine, warmup: bool) -> None:
    model = engine.make()
    await model.load(engine.options(warmup=warmup), unseen)
    computed = model.metrics()["generation_tokens_total"]
    await model.close()
    assert (computed > 0) == warmup


# Leaving


async def test_a_caller_who_leaves_frees_the_slot_at_once() -> None:
    model = Generator()
    async with running(model, options()) as run:
        sink = Collector(stop_after=3)
        with pytest.raises(Cancelled):
            await run(request(ENDLESS, max_output_length=4000), sink)
        assert await idle(model.engine)
    assert len(sink.chunks) == 3


async def test_a_caller_who_leaves_while_the_prompt_is_computed_frees_the_slot() -> None:
    model = Generator()
    async with running(model, options(options={"context_length": 8000, "prompt_batch": 32})) as run:
        sink = Collector(streaming=False)
        task = asyncio.create_task(run(request("salve " * 1000), sink))
        while not any(await asyncio.to_thread(slots, model.engine)):
            await asyncio.sleep(0.001)
        sink.token.cancel()
        with pytest.raises(Cancelled):
            await task
        assert await idle(model.engine)


# Adapters


ADAPTERS = {"arr": ("arr", 1.0), "ahoy": ("ahoy", 0.0)}


async def test_the_weights_of_the_component_hold_unless_the_request_names_its_own(engine: Engine) -> None:
    async with running(engine.make(), engine.options(adapters=ADAPTERS)) as run:
        texts = {
            name: (await run(request(adapters=blend, max_output_length=4))).result.text
            for name, blend in {"file": None, "ahoy": {"ahoy": 1.0}, "none": {}, "zero": {"arr": 0.0}}.items()
        }
    async with running(engine.make(), engine.options()) as run:
        base = (await run(request(max_output_length=4))).result.text
    assert set(texts["file"].split()) == {"arr"}
    assert set(texts["ahoy"].split()) == {"ahoy"}
    assert texts["none"] == texts["zero"] == base


async def test_blends_of_callers_do_not_mix(engine: Engine) -> None:
    blends = [{"arr": 1.0}, {"ahoy": 1.0}, {}] * 4
    async with running(engine.make(), engine.options(adapters=ADAPTERS)) as run:
        outcomes = await asyncio.gather(*(run(request(adapters=b, max_output_length=6)) for b in blends))
    words = [set(outcome.result.text.split()) for outcome in outcomes]
    assert words[0::3] == [{"arr"}] * 4
    assert words[1::3] == [{"ahoy"}] * 4
    assert all(not each & {"arr", "ahoy"} for each in words[2::3])


async def test_an_unknown_adapter_is_refused_with_the_known_ones(engine: Engine) -> None:
    async with running(engine.make(), engine.options(adapters=ADAPTERS)) as run:
        with pytest.raises(InvalidInput, match="no adapter `avast`; there are: `arr`, `ahoy`"):
            await run(request(adapters={"avast": 1.0}))


async def test_the_metrics_of_the_engine_count_tokens(engine: Engine) -> None:
    model = engine.make()
    async with running(model, engine.options()) as run:
        await run(request())
        metrics = model.metrics()
    assert metrics["generation_tokens_total"] >= ANSWER_TOKENS - 1
    assert metrics["requests_running"] == 0
