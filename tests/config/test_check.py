from __future__ import annotations

import pytest
from tests.config.projects import FOLDER, MODEL, errors, mistake, project, told, underlined

from model_compose.config.load import parse
from model_compose.config.schema import DEFAULT, SYNTHESISED_WORKFLOW, Call, Job
from model_compose.errors import ConfigErrors, Note


class TestWithoutWorkflows:
    def test_the_only_component_is_the_workflow(self) -> None:
        found = project(f"component: {{id: chat, {MODEL}}}")
        workflow = found.workflows[SYNTHESISED_WORKFLOW]
        assert list(found.workflows) == [SYNTHESISED_WORKFLOW]
        assert workflow.jobs == (Job("__job__", Call("chat", DEFAULT)),)
        assert found.default_workflow() is workflow

    def test_of_several_components_each_is_a_workflow_by_its_own_id(self) -> None:
        found = project(f"components: [{{id: a, {MODEL}}}, {{id: b, {MODEL}, default: true}}]")
        assert {name: workflow.jobs[0].work for name, workflow in found.workflows.items()} == {
            "a": Call("a", DEFAULT),
            "b": Call("b", DEFAULT),
        }
        assert found.default_workflow() is found.workflows["b"]

    def test_without_a_default_component_there_is_no_default_workflow(self) -> None:
        assert project(f"components: [{{id: a, {MODEL}}}, {{id: b, {MODEL}}}]").default_workflow() is None

    def test_a_component_must_say_which_of_its_actions_is_meant(self) -> None:
        text = f"component: {{{MODEL}, actions: [{{id: a}}, {{id: b}}]}}"
        assert told(text) == ["the component has several actions, and none is the default"]
        assert project(text.replace("id: a", "id: a, default: true")).workflows
        assert told(f"workflow: {{action: b}}\n{text}") == []


class TestSections:
    def test_settings_stand_at_the_top(self) -> None:
        found = project(f"name: n\nmemory_limit: 4GiB\nthreads: 2\nx-mine: {{a: 1}}\ncomponent: {{{MODEL}}}")
        assert (found.settings.name, found.settings.memory_limit, found.settings.threads) == ("n", 4 << 30, 2)
        assert (found.folder, found.warnings) == (FOLDER, ())

    @pytest.mark.parametrize(
        ("text", "message", "hint"),
        [
            ("x-a: 1", "the file declares no component", "begin with `component:`"),
            ("controller: {}", "the file declares no component", "begin with `component:`"),
            (
                "peft_adapters: []",
                "`peft_adapters` belongs in a component",
                "write `component:`, and below it",
            ),
            ("{type: model, model: ./x}", "`type` and `model` belong in a component", "write `component:`"),
            ("temperature: 1", "`temperature` belongs in a component", "write `component:`"),
            ("params: {}", "`params` belongs in a component", "write `component:`"),
            ("actions: []", "`actions` belongs in a component", "write `component:`"),
            ("{jobs: [], title: x}", "`jobs` and `title` belong in a workflow", "write `workflow:`"),
            ("port: 80", "`port` belongs in a controller", "write `controller:`"),
        ],
    )
    def test_a_file_without_components_says_what_to_begin_with(
        self, text: str, message: str, hint: str
    ) -> None:
        error = mistake(text)
        assert error.message == message
        assert str(error.hint).startswith(hint)

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ("compoment: {}", "unknown field `compoment` in the file"),
            ("gateways: []", "`gateways` of the file is known, and not supported yet"),
            ("batch_size: 1", "`batch_size` belongs in a component"),
            ("threads: 0", "`threads` of the file: expected an integer of at least 1 or null, found `0`"),
        ],
    )
    def test_a_mistake_at_the_top(self, keys: str, message: str) -> None:
        assert told(f"component: {{{MODEL}}}\n{keys}\n") == [message]

    def test_one_and_several_do_not_stand_together_and_both_are_looked_at(self) -> None:
        text = f"component: {{{MODEL}, a_: 1}}\ncomponents: [{{id: b, {MODEL}, b_: 1}}]\n"
        assert [underlined(error) for error in errors(text)] == ["component", "a_", "b_"]

    @pytest.mark.parametrize("text", ["components:", "components: {}", "components: a", "workflows: 5"])
    def test_several_are_a_list(self, text: str) -> None:
        name = text.partition(":")[0]
        assert told(text) == [f"`{name}` is not a list"]


class TestHistory:
    """A mistake has its place and its way there, however the value came to be where it is."""

    def test_through_a_second_file(self) -> None:
        error = mistake(f"component: {{{MODEL}, batch_size: 8}}", "component: {batch_size: 0}")
        assert str(error.place) == "1.yml:1:25"
        assert [str(note.place) for note in error.notes] == [f"f.yml:1:{len(MODEL) + 27}"]

    def test_through_an_alias(self) -> None:
        error = mistake(f"x-a: &a 0\ncomponent: {{{MODEL}, batch_size: *a}}")
        assert (str(error.place), underlined(error)) == ("f.yml:1:9", "0")
        assert [note.message for note in error.notes] == ["used here through the alias `*a`"]

    def test_through_a_merged_key(self) -> None:
        error = mistake(f"x-a: &a {{bach_size: 0}}\ncomponent: {{{MODEL}, <<: *a}}")
        assert (str(error.place), underlined(error)) == ("f.yml:1:10", "bach_size")
        assert [note.message for note in error.notes] == ["merged here by `<<: *a`"]

    def test_through_a_variable(self) -> None:
        error = mistake(f"component: {{{MODEL}, batch_size: '${{env.N}}'}}", N="x")
        assert underlined(error) == "'${env.N}'"
        assert [note.message for note in error.notes] == ["`N` comes from .env:1 and is `x`"]

    def test_a_mistake_of_a_shared_part_is_told_once(self) -> None:
        components = ", ".join(f"{{<<: *a, id: c{i}}}" for i in range(20))
        shared = f"x-a: &a {{{MODEL}, batch_size: 0, devise: cpu, prompt: '${{inptu}}'}}\n"
        text = f"{shared}components: [{components}]"
        assert len(errors(text)) == 3


class TestWarnings:
    def warning(self, text: str) -> Note:
        (only,) = project(text).warnings
        return only

    def test_a_token_that_is_not_set(self) -> None:
        text = "{type: model, task: text-embedding, model: {repository: a/b, token: '${env.T}'}}"
        assert self.warning(f"component: {text}").message == (
            "environment variable `T` is not set, so there is no token"
        )

    def test_a_token_that_stands_in_the_file(self) -> None:
        text = "{type: model, task: text-embedding, model: {repository: a/b, token: hf_abc}}"
        assert "a token stands in the file" in self.warning(f"component: {text}").message

    def test_half_precision_on_a_cpu(self) -> None:
        text = "{type: model, task: text-embedding, model: a/b, device: cpu, precision: float16}"
        found = self.warning(f"component: {text}")
        assert (found.message, underlined(found)) == (
            "`float16` is slow on a CPU: write `bfloat16` or `float32`",
            "float16",
        )


def test_all_kinds_of_mistakes_come_in_one_run() -> None:
    text = f"""
component:
  {MODEL.replace(", ", chr(10) + "  ")}
  model: ./other.gguf
  temperature: ${{input.t as nubmer}}
  batch_size: ${{env.UNSET}}
  top_p: 7
  sed: 1
  tools: !tag x
workflow:
  jobs: [{{id: a, depends_on: a}}, {{id: a, component: b, input: "${{jobs.c.output}}"}}]
"""
    assert [message.partition(" `")[0] for message in told(text)] == [
        "the key",
        "unknown type",
        "environment variable",
        "`top_p` of the component: expected a number above 0 and at most 1, found",
        "unknown field",
        "unknown field",
        "tags are not used here",
        "job",
        "two jobs are named",
        "there is no component",
        "`${jobs.c.output}`: there is no job",
    ]


def test_a_broken_file_is_not_checked() -> None:
    with pytest.raises(ConfigErrors):
        parse("component: {type: [\n", "f.yml")
