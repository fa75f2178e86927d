"""What is made of the engine's pieces, which are written here as it gives them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from model_compose.errors import EngineError
from model_compose.tasks.chat_completion import tool_calls
from model_compose.tasks.chat_completion.vllm import Demanded
from model_compose.tasks.text_generation.vllm.output import Output
from model_compose.types import Usage

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def piece(text: str, *, ended: str | None = None, logprobs: Any = None, tokens: int = 1) -> Any:
    """A `CompletionOutput`."""
    return SimpleNamespace(text=text, token_ids=[0] * tokens, finish_reason=ended, logprobs=logprobs)


def logprob(value: float, rank: int, text: str | None) -> Any:
    return SimpleNamespace(logprob=value, rank=rank, decoded_token=text)


def test_pieces_make_a_text_with_its_cost_and_reason() -> None:
    output = Output(0, None, None)
    shown = [output.take(each) for each in (piece("a "), piece(""), piece("b", ended="length", tokens=2))]
    assert [delta and delta.text for delta in shown] == ["a ", None, "b"]
    whole = output.completion(7, 3)
    assert (whole.text, whole.finish_reason, whole.usage) == ("a b", "length", Usage(7, 4, 3))


def test_a_request_that_the_engine_gives_up_is_an_error() -> None:
    with pytest.raises(EngineError, match="gave up the request: abort"):
        Output(0, None, None).take(piece("a", ended="abort"))


def test_log_probabilities_are_those_of_the_chosen_and_of_so_many_others() -> None:
    """The engine adds the chosen token to the others if it is none of them."""
    place = {5: logprob(-3.0, 9, "é"), 1: logprob(-0.1, 1, "a"), 2: logprob(-0.2, 2, "b")}
    output = Output(0, 2, None)
    delta = output.take(piece("é", logprobs=[place]))
    assert delta is not None
    assert delta.logprobs == [
        {
            "token": "é",
            "logprob": -3.0,
            "bytes": [195, 169],
            "top_logprobs": [
                {"token": "a", "logprob": -0.1, "bytes": [97]},
                {"token": "b", "logprob": -0.2, "bytes": [98]},
            ],
        }
    ]
    assert Output(0, 0, None)._told([place]).__next__()["top_logprobs"] == []


def test_a_call_is_not_shown_as_text_and_comes_whole() -> None:
    output = Output(0, None, tool_calls)
    pieces = ["Well. ", *CALL]
    shown = [
        output.take(piece(text, ended="stop" if i == len(CALL) else None)) for i, text in enumerate(pieces)
    ]
    deltas = [delta for delta in shown if delta is not None]
    assert "".join(delta.text for delta in deltas).strip() == "Well."
    (calls,) = [delta.tool_calls for delta in deltas if delta.tool_calls]
    assert calls[0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert output.completion(1, 0).finish_reason == "tool_calls"
    assert output.completion(1, 0).text == "Well."


def test_demanded_calls_are_a_list_and_nothing_is_shown_of_it() -> None:
    output = Output(0, None, Demanded())
    assert output.take(piece('[{"name": "add",')) is None
    delta = output.take(piece(' "arguments": {"a": 1}}]', ended="stop"))
    assert delta is not None
    assert (delta.text, len(delta.tool_calls or ())) == ("", 1)
    assert output.completion(1, 0).tool_calls == [
        {
            "id": "call_0",
            "type": "function",
            "function": {"name": "add", "arguments": '{"a": 1}'},
        }
    ]


def test_demanded_calls_that_were_cut_off_are_text() -> None:
    output = Output(0, None, Demanded())
    output.take(piece('[{"name": "add"', ended="length"))
    whole = output.completion(1, 0)
    assert (whole.text, whole.finish_reason, whole.tool_calls) == ('[{"name": "add"', "length", None)
