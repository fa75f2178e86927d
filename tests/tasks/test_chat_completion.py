"""chat-completion: what makes a conversation, and what every engine answers in one."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from tests import models
from tests.engines import Collector, Engine, load_options, running, unseen

from model_compose.drivers.contract import LoadOptions
from model_compose.errors import InvalidInput, RequestTooLong
from model_compose.tasks.chat_completion import tool_calls
from model_compose.tasks.chat_completion.llamacpp import Chat
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message, normalise
from model_compose.tasks.generation import JsonSchema, ResponseFormat


@pytest.fixture(params=["llamacpp", "huggingface"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param, "chat-completion")


def options(**more: Any) -> LoadOptions:
    return Engine("llamacpp", "chat-completion").options(**more)


def request(*contents: str, **more: Any) -> ChatCompletion:
    roles = ("user", "assistant") * len(contents)
    messages = [Message(role=role, content=content) for role, content in zip(roles, contents)]  # type: ignore[arg-type]  # noqa: B905
    return ChatCompletion(messages=messages, **{"temperature": 0.0, **more})


# What makes a conversation


@pytest.mark.parametrize(
    "given",
    [
        "salve",
        {"role": "user", "content": "salve"},
        [{"role": "user", "content": [{"type": "text", "text": "salve"}]}],
    ],
)
def test_a_conversation_may_be_written_in_several_ways(given: Any) -> None:
    assert normalise({"messages": given})["messages"] == [{"role": "user", "content": "salve"}]


def test_messages_without_content_are_left_out_unless_they_call_tools() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    messages = [{"role": "system", "content": None}, {"role": "user", "content": "salve"}, called]
    assert normalise({"messages": messages})["messages"] == messages[1:]


@pytest.mark.parametrize("call", [{"id": "1"}, {"function": {}}, {"function": "look"}, 3, None])
def test_a_call_of_a_tool_that_names_none_is_refused_by_its_place(call: object) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    with pytest.raises(InvalidInput, match="needs a `function` with a `name`") as caught:
        normalise({"messages": [{"role": "user", "content": "salve"}, message]})
    assert caught.value.field == "messages.tool_calls[0]"


def test_a_conversation_that_says_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="conversation is empty"):
        normalise({"messages": [{"role": "user", "content": None}]})


def test_parts_that_are_no_text_are_refused_by_their_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        normalise({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})
    assert caught.value.field == "messages.content[0]"


# Answers


async def test_the_answer_is_the_assistants_text_alone(engine: Engine) -> None:
    sink = Collector()
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request("salve"), sink)
    assert "salve" not in outcome.result.text
    assert "im_start" not in outcome.result.text
    assert outcome.finish_reason == "stop"
    assert "".join(chunk.text for chunk in sink.chunks) == outcome.result.text


async def test_warming_up_computes_before_the_first_request(engine: Engine) -> None:
    model = engine.make()
    await model.load(engine.options(warmup=True), unseen)
    assert model.metrics()["generation_tokens_total"] > 0
    await model.close()


async def test_the_template_of_the_component_replaces_that_of_the_file(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        own = (await run(request("salve"))).usage.prompt_tokens
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    async with running(engine.make(), engine.options(options={"chat_template": template})) as run:
        bare = (await run(request("salve"))).usage.prompt_tokens
    assert bare < own


async def test_a_template_reaches_no_python() -> None:
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    prying = "{{ ''.__class__.__mro__ }}{{ cycler.__init__.__globals__ }}" + plain
    counts = []
    for each in (prying, plain):
        async with running(Chat(), options(options={"chat_template": each})) as run:
            counts.append((await run(request("salve"))).usage.prompt_tokens)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("prying", ["{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}"])
async def test_a_template_that_reaches_for_python_is_refused_by_the_sandbox(prying: str) -> None:
    engine = Engine("huggingface", "chat-completion")
    async with running(engine.make(), engine.options(options={"chat_template": prying})) as run:
        with pytest.raises(InvalidInput, match="unsafe"):
            await run(request("salve"))


async def test_a_json_schema_forces_the_answer() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=schema))
    async with running(Chat(), options()) as run:
        outcome = await run(request("salve", response_format=form, max_output_length=200))
    assert json.loads(outcome.result.text)["a"] in ("x", "y")


async def test_log_probabilities_are_given(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request("salve", logprobs=1, max_output_length=2))
    assert len(outcome.result.logprobs) == 2


async def test_log_probabilities_may_come_without_rivals(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        outcome = await run(request("salve", logprobs=0, max_output_length=2))
    assert [entry["top_logprobs"] for entry in outcome.result.logprobs] == [[], []]


TOOL = {"type": "function", "function": {"name": "sing", "parameters": {"type": "object", "properties": {}}}}
#: Shows its tools; the toy's own does not.
TOOLS_TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for message in messages %}{{ message['content'] }}{% if message.tool_calls %}"
    "{% for call in message.tool_calls %}<tool_call>{{ call | tojson }}</tool_call>{% endfor %}{% endif %}"
    "{% endfor %}"
)


async def test_tools_that_the_model_would_never_see_are_refused(engine: Engine) -> None:
    async with running(engine.make(), engine.options()) as run:
        with pytest.raises(InvalidInput, match="no place for tools") as caught:
            await run(request("salve", tools=[TOOL]))
    assert caught.value.field == "tools"


async def test_tools_are_taken_by_a_template_that_shows_them_and_must_be_tools(engine: Engine) -> None:
    async with running(engine.make(), engine.options(options={"chat_template": TOOLS_TEMPLATE})) as run:
        outcome = await run(request("salve", tools=[TOOL], max_output_length=2))
        with pytest.raises(InvalidInput) as caught:
            await run(request("salve", tools=[{"name": "sing"}]))
    assert outcome.usage.completion_tokens >= 1
    assert caught.value.field == "tools"


def test_a_choice_among_no_tools_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs `tools`"):
        normalise({"messages": "salve", "tool_choice": "required"})


async def test_a_conversation_that_does_not_fit_is_refused_with_both_numbers(engine: Engine) -> None:
    async with running(engine.make(), engine.options(context_length=256)) as run:
        with pytest.raises(RequestTooLong) as caught:
            await run(request("salve " * 500))
    assert caught.value.limit == 256


async def test_truncate_forgets_the_oldest_messages_but_not_the_systems() -> None:
    turns = [f"salve {i} " * 8 for i in range(7)]
    system = Message(role="system", content="be brief")
    asked = request(*turns, truncate=True, max_output_length=16)
    asked = ChatCompletion(
        messages=[system, *asked.messages], temperature=0.0, truncate=True, max_output_length=16
    )
    model = Chat()
    async with running(model, options(options={"context_length": 256})) as run:
        kept = model._messages(asked)
        outcome = await run(asked)
    assert kept[0] == system
    assert kept[-1] == asked.messages[-1]
    assert len(kept) < len(asked.messages)
    assert outcome.usage.prompt_tokens <= 240


async def test_truncate_keeps_the_end_of_a_conversation_and_its_system_message() -> None:
    engine = Engine("huggingface", "chat-completion")
    model = engine.make()
    turns = [f"salve {i} " * 8 for i in range(7)]
    messages = [Message(role="system", content="be brief"), *request(*turns).messages]
    asked = ChatCompletion(messages=messages, temperature=0.0, truncate=True, max_output_length=16)
    async with running(model, engine.options(context_length=256)) as run:
        text = model.tokenizer.decode(model.prompt(asked))
        outcome = await run(asked)
    assert "be brief" in text
    assert "salve 6" in text
    assert "salve 0" not in text
    assert outcome.usage.prompt_tokens <= 240


async def test_a_template_that_refuses_the_conversation_says_why() -> None:
    engine = Engine("huggingface", "chat-completion")
    template = "{{ raise_exception('roles must alternate') }}"
    async with running(engine.make(), engine.options(options={"chat_template": template})) as run:
        with pytest.raises(InvalidInput, match="roles must alternate") as caught:
            await run(request("salve"))
    assert caught.value.field == "messages"


async def test_a_call_of_a_tool_cannot_be_forced_by_transformers() -> None:
    engine = Engine("huggingface", "chat-completion")
    async with running(engine.make(), engine.options(options={"chat_template": TOOLS_TEMPLATE})) as run:
        with pytest.raises(InvalidInput, match="cannot force") as caught:
            await run(request("salve", tools=[TOOL], tool_choice="required"))
    assert caught.value.field == "tool_choice"


# Calls of tools


CALL = '<tool_call>\n{"name": "sing", "arguments": {"song": "Dies irae"}}\n</tool_call>'


def test_calls_are_told_from_the_text_around_them() -> None:
    text, calls = tool_calls.split(f"I sing. {CALL}\n{CALL}")
    assert text == "I sing."
    assert [call["function"]["name"] for call in calls] == ["sing", "sing"]
    assert json.loads(calls[1]["function"]["arguments"]) == {"song": "Dies irae"}
    assert [call["index"] for call in calls] == [0, 1]


@pytest.mark.parametrize(
    "text",
    ["just text", "<tool_call> no JSON </tool_call>", '<tool_call>["a list"]</tool_call>', "<tool_call>{"],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert tool_calls.split(text) == (text, [])


def test_the_last_call_may_lack_its_end() -> None:
    assert tool_calls.split(CALL.removesuffix("</tool_call>"))[1] != []


@pytest.mark.parametrize(
    ("text", "shown"), [(f"I sing. {CALL}", "I sing. "), ("a < b and a <tool", "a < b and a "), ("a", "a")]
)
def test_while_it_comes_only_what_is_certainly_text_is_shown(text: str, shown: str) -> None:
    pieces = [tool_calls.text_before(text[:end]) for end in range(len(text) + 1)]
    assert all(later.startswith(piece) for piece, later in pairwise(pieces))
    assert pieces[-1] == shown


@pytest.mark.model
async def test_a_real_model_gives_json_that_fits_its_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "population": {"type": "integer"}},
        "required": ["city", "population"],
        "additionalProperties": False,
    }
    form = ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=schema))
    loaded = load_options(models.smollm2(), "chat-completion", batch_size=1, options={"context_length": 1024})
    async with running(Chat(), loaded) as run:
        outcome = await run(request("Describe Paris.", response_format=form, max_output_length=100))
    answer = json.loads(outcome.result.text)
    assert set(answer) == {"city", "population"}
    assert isinstance(answer["population"], int)


@pytest.mark.model
async def test_a_real_adapter_speaks_like_a_pirate_and_is_gone_at_weight_0() -> None:
    adapters = {"pirate": (models.pirate_lora(), 1.0)}
    loaded = load_options(
        models.smollm2(), "chat-completion", batch_size=2, adapters=adapters, options={"context_length": 1024}
    )
    question = "What is the capital of France?"
    async with running(Chat(), loaded) as run:
        pirate = await run(request(question, max_output_length=24))
        off = await run(request(question, max_output_length=24, adapters={"pirate": 0.0}))
    bare = load_options(models.smollm2(), "chat-completion", batch_size=2, options={"context_length": 1024})
    async with running(Chat(), bare) as run:
        base = await run(request(question, max_output_length=24))
    assert pirate.result.text.startswith("Arr!")
    assert off.result.text == base.result.text
    assert not off.result.text.startswith("Arr")
