from __future__ import annotations

from typing import Any

import pytest
from tests.config.projects import MODEL, errors, mistake, project, told, underlined

from model_compose.config.expression import Scope, references, render
from model_compose.config.schema import SYNTHESISED_ACTION, Action, default_of

EMBED = "type: model, task: text-embedding, model: ./m.gguf"
TALK = "type: model, task: chat-completion, model: ./m.gguf"


def actions(keys: str, model: str = MODEL) -> tuple[Action, ...]:
    (component,) = project(f"component: {{{model}, {keys}}}").components.values()
    return component.actions


def action(keys: str, model: str = MODEL) -> Action:
    (only,) = actions(keys, model)
    return only


def rendered(given: Action, **sources: Any) -> dict[str, Any]:
    return {name: render(tree, Scope(sources)) for name, tree in given.values.items()}


class TestForms:
    def test_a_component_without_an_action_takes_everything_from_the_input(self) -> None:
        default = action("device: cpu")
        assert (default.id, default.synthesised) == (SYNTHESISED_ACTION, True)
        assert "num_beams" not in default.values  # the engine has none
        values = rendered(default, input={"text": "once", "stop": ["."], "temperature": 0})
        given = {name: value for name, value in values.items() if value is not None}
        assert given == {"prompt": "once", "stop_sequences": ["."], "temperature": 0}

    def test_what_a_task_cannot_do_without_comes_from_the_input(self) -> None:
        found = action("params: {temperature: 0}")
        assert rendered(found, input={"prompt": "p", "seed": 3}) == {"prompt": "p", "temperature": 0}

    def test_of_several_names_the_proper_one_wins(self) -> None:
        assert rendered(action("device: cpu"), input={"prompt": "p", "text": "t"})["prompt"] == "p"

    @pytest.mark.parametrize(
        "keys",
        [
            "prompt: '${input.q}', params: {seed: 3}, output: '${result.text}'",
            "text: '${input.q}', seed: 3, output: '${result.text}'",
            "action: {prompt: '${input.q}', seed: 3, output: '${result.text}'}",
            "actions: [{prompt: '${input.q}', params: {seed: 3}, output: '${result.text}'}]",
        ],
    )
    def test_the_ways_of_writing_an_action_mean_the_same(self, keys: str) -> None:
        found = action(keys)
        assert rendered(found, input={"q": "?"}) == {"prompt": "?", "seed": 3}
        assert render(found.output, Scope({"result": {"text": "t"}})) == "t"
        assert (found.id, found.synthesised) == (SYNTHESISED_ACTION, False)

    def test_a_name_in_the_component_is_that_of_its_only_action(self) -> None:
        assert action("action: write, prompt: x").id == "write"
        assert action("action: write").id == "write"

    def test_several_actions_have_names(self) -> None:
        found = actions("actions: [{id: a, timeout: 5m}, {id: b, default: true, streaming: true}]")
        assert [(each.id, each.timeout, each.streaming) for each in found] == [
            ("a", 300, False),
            ("b", None, True),
        ]
        assert default_of(found) is found[1]

    def test_free_keys_mean_nothing(self) -> None:
        assert action("x-a: 1, prompt: y, params: {x-b: 1}, x-c: {}").values == {"prompt": "y"}
        assert action("x-a: 1").synthesised


class TestValues:
    def test_a_number_where_text_is_wanted_is_text(self) -> None:
        assert action("prompt: 1.10, stop: [2.0]").values == {"prompt": "1.10", "stop_sequences": ["2.0"]}
        messages = "messages: [{role: user, content: 1.10}]"
        assert action(messages, TALK).values == {"messages": [{"role": "user", "content": "1.10"}]}

    def test_free_keys_of_a_message_do_not_reach_the_engine(self) -> None:
        messages = "messages: [{role: user, content: '${input.q}', x-note: n}]"
        values = rendered(action(messages, TALK), input={"q": "?"})
        assert values == {"messages": [{"role": "user", "content": "?"}]}

    @pytest.mark.parametrize(
        "messages",
        [
            "{'*': '${input.turns}', role: '${item.who}', content: '${item.said}'}",
            "[{role: system, content: Hi}, '...${input.turns}']",
            "{'+': [[{role: user, content: a}], '${input.turns}']}",
            "'${input.turns}'",
        ],
    )
    def test_operators_make_values_of_any_type(self, messages: str) -> None:
        found = action(f"messages: {messages}", TALK)
        turns = [{"who": "user", "said": "x", "role": "user", "content": "x"}]
        assert isinstance(rendered(found, input={"turns": turns})["messages"], list)

    def test_a_slot_for_many_keeps_a_list_a_list(self) -> None:
        found = action("text: '${input.t as text}'", EMBED)
        assert rendered(found, input={"t": ["a", 1]}) == {"text": ["a", "1"]}

    def test_a_refused_parameter_may_say_what_happens_anyway(self) -> None:
        assert rendered(action("num_beams: 1, prompt: x")) == {"num_beams": 1, "prompt": "x"}
        error = mistake(f"component: {{{MODEL}, params: {{num_beams: '${{input.n}}'}}}}")
        assert error.message == "`num_beams` cannot be used here: it has no beam search"
        assert underlined(error) == "num_beams"

    def test_adapters_weighed_by_the_input_are_a_blend_of_the_request(self) -> None:
        adapters = "[{name: a, model: ./a.gguf, weight: '${input.w}'}, {model: ./b.gguf, weight: 0.5}]"
        written = action(f"prompt: x, peft_adapters: {adapters}")
        assert rendered(written, input={"w": "0.25"})["adapters"] == {"a": 0.25, "peft_adapter_1": 0.5}
        assert [r.text for tree in written.values.values() for r in references(tree)] == ["${input.w}"]
        default = action(f"peft_adapters: {adapters}")
        assert rendered(default, input={"w": 1})["adapters"] == {"a": 1, "peft_adapter_1": 0.5}
        assert rendered(default, input={"w": 1, "adapters": {"a": 0}})["adapters"] == {"a": 0}
        chosen = action(f"adapters: {{a: 1}}, peft_adapters: {adapters}")
        assert rendered(chosen, input={})["adapters"] == {"a": 1}


class TestMistakes:
    @pytest.mark.parametrize(
        ("keys", "message", "part"),
        [
            ("prompt: a, text: b", "`prompt` and `text` are the same field of the component", "text"),
            ("seed: 1, params: {seed: 2}", "`seed` stands both in `params` and beside it", "seed"),
            (
                "stop: a, params: {stop_sequences: b}",
                "`stop_sequences` and `stop` are the same field of the component",
                "stop",
            ),
            ("params: [1]", "`params` of the component: expected a map, found a list", "[1]"),
            (
                "params: {seed: x}",
                '`seed` of the component: expected an integer of at least 1 or null, found `"x"`',
                "x",
            ),
            ("action: {sed: 1}", "unknown field `sed` in an action of the component", "sed"),
            ("actions: [{id: a, sed: 1}]", "unknown field `sed` in action `a` of the component", "sed"),
            ("action: [x]", "an action of the component: expected a map, found a list", "[x]"),
            ("actions: [x]", 'an action of the component: expected a map, found `"x"`', "x"),
            ("actions: {id: a}", "`actions` is not a list", "{id: a}"),
            ("actions: []", "`actions` is an empty list", "[]"),
            (
                "prompt: x, action: {seed: 1}",
                "`prompt` of the component belongs in one of its actions",
                "prompt",
            ),
            ("action: a, actions: [{id: a}]", "`action` is a name here, and there are `actions`", "a"),
            ("actions: [{id: a}, {id: a, default: true}]", "two actions are named `a`", "a"),
            ("actions: [{id: 'a b'}]", "`a b` cannot be an id", "'a b'"),
            (
                "actions: [{id: __default__}]",
                "`__default__` is not an id: it means the default action",
                "__default__",
            ),
            (
                "action: {output: 1, outptu: 2}",
                "unknown field `outptu` in an action of the component",
                "outptu",
            ),
            ("seed: '${result.x}'", "`${result.x}`: there is no `result` here", "${result.x}"),
            ("output: '${result.x}'", "`${result.x}`: `result` has no `x`", "${result.x}"),
        ],
    )
    def test_a_mistake_is_told_where_it_is(self, keys: str, message: str, part: str) -> None:
        error = mistake(f"component: {{{MODEL}, {keys}}}")
        assert (error.message, underlined(error)) == (message, part)

    def test_only_what_gives_pieces_streams(self) -> None:
        assert action("streaming: true").streaming
        error = mistake(f"component: {{{EMBED}, streaming: true}}")
        assert underlined(error) == "streaming"

    def test_of_several_defaults_all_but_the_first_are_told(self) -> None:
        keys = "actions: [{id: a, default: true}, {id: b, default: true}, {id: c, default: true}]"
        assert told(f"component: {{{MODEL}, {keys}}}") == ["more than one action has `default: true`"] * 2

    def test_references_are_looked_at_in_values_that_are_wrong(self) -> None:
        found = told(f"component: {{{TALK}, messages: [{{role: nobody, content: '${{inptu.x}}'}}]}}")
        assert len(found) == 2
        assert any("there is no `inptu` here" in message for message in found)

    def test_nothing_is_said_of_actions_that_nobody_can_know(self) -> None:
        text = f"components: [{{id: a, {MODEL}, actions: [5]}}]\nworkflow: {{component: a, action: b}}"
        assert len(errors(text)) == 1
