"""What a request says in the words of vLLM, looked at without it."""

from __future__ import annotations

from typing import Any

import pytest

from model_compose.errors import InvalidInput
from model_compose.tasks.generation import Generation, JsonSchema, ResponseFormat
from model_compose.tasks.text_generation.vllm.sampling import form, parameters

ROOM = 5000


def test_without_a_word_the_defaults_of_the_task_hold_and_not_the_engine_s() -> None:
    assert parameters(Generation(), ROOM) == {
        "n": 1,
        "max_tokens": 1024,
        "min_tokens": 1,
        "temperature": 0.7,
        "top_k": 50,
        "top_p": 0.9,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": [],
        "seed": None,
        "logprobs": None,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_output_length": 7}, {"max_tokens": 7}),
        ({"max_output_length": 9000}, {"max_tokens": ROOM}),
        ({"min_output_length": 9}, {"min_tokens": 9}),
        ({"min_output_length": 9, "max_output_length": 7}, {"min_tokens": 7, "max_tokens": 7}),
        ({"num_return_sequences": 3}, {"n": 3}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 1e-9}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 5.0}, {"temperature": 0.0}),
        ({"temperature": 2.0}, {"temperature": 2.0}),
        ({"top_k": 0}, {"top_k": 0}),
        ({"top_p": 0.5, "min_p": 0.1}, {"top_p": 0.5, "min_p": 0.1}),
        ({"repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        (
            {"presence_penalty": -1, "frequency_penalty": 2},
            {"presence_penalty": -1, "frequency_penalty": 2},
        ),
        ({"stop_sequences": "x"}, {"stop": ["x"]}),
        ({"stop_sequences": ("x", "y")}, {"stop": ["x", "y"]}),
        ({"seed": 2**32 - 2}, {"seed": 2**32 - 2}),
        ({"logprobs": 0}, {"logprobs": 0}),
    ],
)
def test_each_parameter_reaches_the_engine(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parameters(Generation(**given), ROOM) == {**parameters(Generation(), ROOM), **expected}


@pytest.mark.parametrize("temperature", [2.5, 5.0, 0.005])
def test_a_temperature_that_the_engine_would_change_or_refuse_is_refused(temperature: float) -> None:
    with pytest.raises(InvalidInput, match=r"from 0.01 to 2, not") as caught:
        parameters(Generation(temperature=temperature), ROOM)
    assert caught.value.field == "temperature"


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, None),
        (ResponseFormat(type="text"), None),
        (ResponseFormat(type="json_object"), {"json_object": True}),
        (ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=SCHEMA)), {"json": SCHEMA}),
    ],
)
def test_the_form_of_an_output(wanted: ResponseFormat | None, expected: dict[str, Any] | None) -> None:
    assert form(wanted) == expected
