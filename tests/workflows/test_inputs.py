"""What does a workflow take, and which inputs does it refuse?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from tests.compose.apps import project_of

from model_compose.errors import InvalidInput
from model_compose.workflows.inputs import InputVariable, WorkflowInputs, inputs_of

COMPONENT = """
component:
  id: echo
  type: model
  task: {task}
  driver: echo
"""


def inputs(tmp_path: Path, *lines: str, task: str = "text-generation", workflow: str = "") -> WorkflowInputs:
    """The inputs of the only workflow of a file: a component with these lines, and a workflow."""
    text = COMPONENT.format(task=task) + "".join(f"  {line}\n" for line in lines) + workflow
    project = project_of(text, tmp_path)
    (chosen,) = project.workflows.values()
    return inputs_of(chosen, project)


def jobs(*lines: str) -> str:
    return "workflow:\n  id: main\n  jobs:\n" + "".join(f"    - {line}\n" for line in lines)


def named(found: WorkflowInputs, name: str) -> InputVariable:
    return next(variable for variable in found.variables if variable.name == name)


def names(found: WorkflowInputs) -> list[str]:
    return [variable.name for variable in found.variables]


# Which there are


def test_a_component_alone_takes_what_its_task_takes(tmp_path: Path) -> None:
    found = inputs(tmp_path)
    assert found.main == "prompt"
    assert found.closed
    assert {"prompt", "text", "temperature", "seed", "max_output_length"} <= found.keys
    assert named(found, "temperature").default == 0.7
    assert not named(found, "temperature").required
    assert "less predictable" in named(found, "temperature").description


def test_an_action_without_its_prompt_takes_it_from_the_input(tmp_path: Path) -> None:
    found = inputs(tmp_path, "params: {temperature: 0}")
    assert set(names(found)) == {"prompt", "text"}
    assert found.accept("hello") == {"prompt": "hello"}
    with pytest.raises(InvalidInput, match="`prompt` or `text` is missing"):
        found.accept({})


def test_an_action_takes_what_it_refers_to_and_nothing_else(tmp_path: Path) -> None:
    found = inputs(
        tmp_path, "prompt: 'Say ${input.what} to ${input.who | everybody}'", "seed: ${input.seed as integer}"
    )
    assert names(found) == ["what", "who", "seed"]
    assert named(found, "who").default == "everybody"
    assert str(named(found, "seed").type) != ""
    assert not found.main


def test_only_a_whole_value_of_a_required_field_is_required(tmp_path: Path) -> None:
    assert named(inputs(tmp_path, "prompt: ${input.q}"), "q").required
    assert not named(inputs(tmp_path, "prompt: 'Q: ${input.q}'"), "q").required
    assert not named(inputs(tmp_path, "prompt: ${input.q | nothing}"), "q").required
    assert not named(inputs(tmp_path, "prompt: x", "seed: ${input.s}"), "s").required


def test_of_alternatives_one_is_enough(tmp_path: Path) -> None:
    found = inputs(tmp_path, "prompt: ${input.question | ${input.q}}")
    assert names(found) == ["question", "q"]
    assert found.accept({"q": "x"}) == {"q": "x"}
    assert found.accept({"question": "x"}) == {"question": "x"}
    with pytest.raises(InvalidInput, match="`question` or `q` is missing in the input"):
        found.accept({})


def test_the_user_must_say_something_and_the_system_need_not(tmp_path: Path) -> None:
    found = inputs(
        tmp_path,
        "messages: [{role: system, content: '${input.system}'}, {role: user, content: '${input.prompt}'}]",
        task="chat-completion",
    )
    assert named(found, "prompt").required
    assert not named(found, "system").required


def test_a_path_names_a_field_of_a_key(tmp_path: Path) -> None:
    found = inputs(tmp_path, "prompt: ${input.chat.question}", "seed: ${input.chat.seed}")
    assert names(found) == ["chat.question", "chat.seed"]
    assert found.keys == {"chat"}
    assert found.accept({"chat": {"question": "x"}})
    with pytest.raises(InvalidInput, match=r"`chat\.question` is missing"):
        found.accept({"chat": {}})
    with pytest.raises(InvalidInput, match=r"`chat\.question` is missing"):
        found.accept({"chat": "x"})


def test_what_takes_the_input_as_a_whole_takes_any_key(tmp_path: Path) -> None:
    found = inputs(tmp_path, "prompt: ${input}")
    assert not found.closed
    assert found.accept({"anything": 1}) == {"anything": 1}


def test_annotations_describe_a_field(tmp_path: Path) -> None:
    found = inputs(tmp_path, "prompt: ${input.q as text @(description What to ask)}")
    assert named(found, "q").description == "What to ask"


def test_what_a_job_gives_its_action_is_not_asked_for(tmp_path: Path) -> None:
    found = inputs(
        tmp_path,
        "prompt: ${input.prompt}",
        workflow=jobs("{id: a, component: echo, input: {prompt: '${input.question}'}}"),
    )
    assert names(found) == ["question"]
    assert named(found, "question").required, "it fills what the action cannot do without"


def test_a_job_that_passes_the_input_on_asks_for_what_its_action_asks_for(tmp_path: Path) -> None:
    for given in ("", ", input: '${input}'"):
        found = inputs(
            tmp_path, "prompt: ${input.prompt}", workflow=jobs(f"{{id: a, component: echo{given}}}")
        )
        assert names(found) == ["prompt"]
        assert found.closed


def test_every_part_of_a_workflow_may_ask_for_something(tmp_path: Path) -> None:
    found = inputs(
        tmp_path,
        "prompt: ${input.prompt}",
        workflow="workflow:\n  id: main\n  output: '${input.tail}'\n  jobs:\n"
        "    - {id: a, component: echo, input: {prompt: x},"
        " output: '${input.out}', repeat_count: '${input.n}'}\n",
    )
    assert set(names(found)) == {"out", "n", "tail"}


def test_a_field_that_several_jobs_use_is_one_field(tmp_path: Path) -> None:
    found = inputs(
        tmp_path,
        "prompt: ${input.prompt}",
        workflow=jobs(
            "{id: a, component: echo, input: {prompt: 'x ${input.who as text @(description Who)}'}}",
            "{id: b, component: echo, input: {prompt: '${input.who}'}}",
        ),
    )
    assert names(found) == ["who"]
    assert named(found, "who").required
    assert named(found, "who").description == "Who"
    assert named(found, "who").default is UNSET


# What is refused


@pytest.mark.parametrize(
    ("given", "told", "hint"),
    [
        ({"promt": "x"}, "unknown field `promt`", "did you mean `prompt`"),
        ({"prompt": "x", "temprature": 1}, "unknown field `temprature`", "did you mean `temperature`"),
        ({}, "`prompt` or `text` is missing", None),
        ({"prompt": None}, "`prompt` or `text` is missing", None),
        (None, "`prompt` or `text` is missing", None),
    ],
)
def test_an_unknown_or_missing_field_is_refused_by_name(
    tmp_path: Path, given: Any, told: str, hint: str | None
) -> None:
    with pytest.raises(InvalidInput, match=told) as raised:
        inputs(tmp_path).accept(given)
    assert (hint or "") in (raised.value.hint or "")
    assert raised.value.field is not None


def test_what_is_no_map_fills_the_main_field_of_a_component_alone(tmp_path: Path) -> None:
    found = inputs(tmp_path)
    assert found.accept("hello") == {"prompt": "hello"}
    assert found.accept(["a", "b"]) == {"prompt": ["a", "b"]}


def test_what_is_no_map_is_refused_where_no_field_is_the_main_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="must be a map") as raised:
        inputs(tmp_path, "prompt: ${input.q}").accept("hello")
    assert "`q`" in (raised.value.hint or "")


def test_a_workflow_that_takes_nothing_says_so(tmp_path: Path) -> None:
    found = inputs(tmp_path, "prompt: always the same")
    assert found.accept({}) == {}
    assert found.accept(None) == {}
    with pytest.raises(InvalidInput) as raised:
        found.accept({"x": 1})
    assert raised.value.hint == "it takes no input"
