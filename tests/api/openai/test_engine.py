"""What of OpenAI's API does a real engine honour?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tests import models
from tests.api.openai.clients import events, post, refused, served

pytestmark = pytest.mark.process

FILE = f"""
controller: {{port: 0}}
components:
  - id: tiny
    type: model
    task: chat-completion
    model: {models.tiny_chat()}
    temperature: 0
    max_output_length: 12
    batch_size: 2
    aliases: ["a/b"]
    options: {{context_length: 1000}}
    peft_adapters:
      - {{name: pirate, model: {models.tiny_lora("arr")}}}
      - {{name: sailor, model: {models.tiny_lora("ahoy")}, weight: 0}}
  - id: text
    type: model
    task: text-generation
    model: {models.tiny_chat()}
    batch_size: 2
    temperature: 0
    max_output_length: 12
"""

HELLO: Any = [{"role": "user", "content": "salve"}]


async def test_what_an_engine_can_do_it_does(tmp_path: Path) -> None:
    async with served(FILE, tmp_path) as (service, client):
        create = client.chat.completions.create

        # Defaults of the file, and what a request says instead
        answer = await create(model="tiny:sailor", messages=HELLO)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12
        short = await create(model="a/b", messages=HELLO, max_completion_tokens=3)
        assert short.usage is not None
        assert short.usage.completion_tokens == 3

        # Adapters by their names: one with its weight in the file, the others without any
        pirate = await create(model="tiny:pirate", messages=HELLO)
        blend = await create(
            model="tiny", messages=HELLO, extra_body={"adapters": {"pirate": 0, "sailor": 1}}
        )
        assert set((pirate.choices[0].message.content or "").split()) == {"arr"}
        assert set((blend.choices[0].message.content or "").split()) == {"ahoy"}
        assert "arr" not in (answer.choices[0].message.content or "")
        error = await refused(
            service, "chat/completions", model="tiny:pirate", messages=HELLO, adapters={"pirate": 0.5}
        )
        assert "say the same" in error["message"]
        listed = [model.id async for model in client.models.list()]
        assert listed == ["tiny", "a/b", "tiny:pirate", "tiny:sailor", "text"]

        # Log probabilities
        found = await create(model="tiny", messages=HELLO, logprobs=True, top_logprobs=3, max_tokens=2)
        assert found.choices[0].logprobs is not None
        tokens = found.choices[0].logprobs.content or []
        assert [len(token.top_logprobs) for token in tokens] == [3, 3]
        assert tokens[0].model_dump().keys() == {"token", "bytes", "logprob", "top_logprobs"}
        bare = await create(model="tiny", messages=HELLO, logprobs=True, max_tokens=2)
        assert bare.choices[0].logprobs is not None
        assert [token.top_logprobs for token in bare.choices[0].logprobs.content or []] == [[], []]

        # Several answers, whole and in a stream; the same seed gives the same
        sampled: Any = {"messages": HELLO, "n": 2, "temperature": 1.5, "seed": 7, "model": "tiny:sailor"}
        first, again = await create(**sampled), await create(**sampled)
        texts = [choice.message.content for choice in first.choices]
        assert texts == [choice.message.content for choice in again.choices]
        assert len(set(texts)) == 2
        chunks = [chunk async for chunk in await create(**sampled, stream=True)]
        streamed = {0: "", 1: ""}
        for chunk in chunks:
            streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        assert list(streamed.values()) == texts
        assert [c.choices[0].finish_reason for c in chunks[-2:]] == ["length", "length"]
        error = await refused(service, "chat/completions", model="tiny", messages=HELLO, n=2)
        assert error["param"] == "n"  # they would all be the same at temperature 0

        # Stops
        whole = first.choices[0].message.content or ""
        word = whole.split()[2]
        stopped = await create(**{**sampled, "n": 1, "stop": [f" {word}"]})
        assert stopped.choices[0].finish_reason == "stop"
        assert stopped.choices[0].message.content == whole.partition(f" {word}")[0]

        # JSON
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
        form: Any = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
        forced = await create(model="tiny", messages=HELLO, response_format=form, max_tokens=40)
        assert json.loads(forced.choices[0].message.content or "").keys() == {"a"}
        wrong = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
        error = await refused(
            service, "chat/completions", model="tiny", messages=HELLO, response_format=wrong
        )
        assert error["param"] == "response_format"
        text: Any = {"format": {"type": "json_schema", "name": "it", "schema": schema}}
        typed = await client.responses.create(model="tiny", input="salve", max_output_tokens=40, text=text)
        assert json.loads(typed.output_text).keys() == {"a"}

        # What it does not have
        error = await refused(service, "chat/completions", model="tiny", messages=HELLO, num_beams=4)
        assert error["message"].startswith("`num_beams` cannot be used here: llama.cpp has no beam search")

        # Too long, also in a stream
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as raised:
                await create(model="tiny", messages=[{"role": "user", "content": "a " * 5000}], stream=stream)
            assert raised.value.code == "context_length_exceeded"

        # The responses that were cut
        cut = await client.responses.create(model="tiny", input="salve")
        assert cut.status == "incomplete"
        assert cut.incomplete_details is not None
        assert cut.incomplete_details.reason == "max_output_tokens"


async def test_the_older_route_has_the_older_form_of_log_probabilities(tmp_path: Path) -> None:
    async with served(FILE, tmp_path) as (service, client):
        found = await client.completions.create(model="text", prompt="salve", logprobs=2, max_tokens=3)
        response = await post(
            service, "completions", model="text", prompt="salve", logprobs=2, max_tokens=3, stream=True
        )
        several = await client.completions.create(
            model="text", prompt=["salve", "vale"], n=2, temperature=1.5, max_tokens=3
        )
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == found.choices[0].text
    assert (logprobs.text_offset or [])[0] == 0
    assert [len(top) for top in logprobs.top_logprobs or []] == [2, 2, 2]
    chunks = [chunk["choices"][0]["logprobs"] for chunk in events(response.text)[:-1]]
    assert [offset for chunk in chunks for offset in chunk["text_offset"]] == logprobs.text_offset
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
