from __future__ import annotations

import pytest
from msgspec import UNSET
from tests.config.projects import MODEL, errors, mistake, project, told, underlined

from model_compose.config.expression import Scope, render
from model_compose.config.schema import DEFAULT, SYNTHESISED_JOB, Call, Workflow

COMPONENT = f"component: {{id: c, {MODEL}}}\n"


def workflow(text: str) -> Workflow:
    (only,) = project(f"{COMPONENT}workflow: {text}\n").workflows.values()
    return only


class TestForms:
    @pytest.mark.parametrize(
        "text",
        [
            "{title: T, component: c, input: '${input.q}', output: '${output.text}'}",
            "{title: T, job: {component: c, input: '${input.q}', output: '${output.text}'}}",
            "{title: T, jobs: [{component: c, input: '${input.q}', output: '${output.text}'}]}",
        ],
    )
    def test_the_ways_of_writing_a_single_job_mean_the_same(self, text: str) -> None:
        found = workflow(text)
        (job,) = found.jobs
        assert isinstance(job.work, Call)
        assert (found.title, found.output, job.id, job.work.component) == ("T", UNSET, SYNTHESISED_JOB, "c")
        assert render(job.work.input, Scope({"input": {"q": "?"}})) == "?"
        assert render(job.output, Scope({"output": {"text": "t"}})) == "t"

    def test_a_title_alone_calls_the_default_component(self) -> None:
        (job,) = workflow("{title: T}").jobs
        assert job.work == Call("c", DEFAULT)

    def test_a_workflow_with_jobs_has_an_output_of_its_own(self) -> None:
        found = workflow("{output: {x: '${jobs.a.output} ${input.y} ${context.run_id}'}, jobs: [{id: a}]}")
        scope = Scope({"jobs": {"a": {"output": 1}}, "input": {"y": 2}, "context": {"run_id": 3}})
        assert render(found.output, scope) == {"x": "1 2 3"}

    def test_several_workflows_have_ids(self) -> None:
        found = project(
            f"{COMPONENT}workflows: [{{id: a}}, {{id: b, default: true, name: N, description: D}}]\n"
        )
        assert list(found.workflows) == ["a", "b"]
        assert found.default_workflow() is found.workflows["b"]
        assert (found.workflows["b"].name, found.workflows["b"].description) == ("N", "D")

    def test_without_a_clear_default_there_is_none(self) -> None:
        assert project(f"{COMPONENT}workflows: [{{id: a}}, {{id: b}}]\n").default_workflow() is None
        assert project(f"{COMPONENT}workflows: [{{id: a}}]\n").default_workflow() is not None

    def test_free_keys_mean_nothing(self) -> None:
        assert workflow("{x-a: 1, jobs: [{x-b: 2, id: a}]}").jobs[0].id == "a"


@pytest.mark.parametrize(
    ("text", "message", "part"),
    [
        ("x", 'the workflow: expected a map, found `"x"`', "x"),
        ("{titel: x}", "unknown field `titel` in the workflow", "titel"),
        ("{private: true}", "`private` of the workflow is known, and not supported yet", "private"),
        ("{hook: x}", "`hook` of the workflow is known, and not supported yet", "hook"),
        ("{title: [x]}", "`title` of the workflow: expected text or null, found a list", "[x]"),
        ("{id: a, jobs: []}", "`jobs` is an empty list", "[]"),
        ("{job: {}, jobs: [{}]}", "both `job` and `jobs` are given", "job"),
        ("{id: a, input: x, jobs: [{}]}", "`input` of workflow `a` belongs in one of its jobs", "input"),
        ("{hook: x, jobs: [{}]}", "`hook` of the workflow is known, and not supported yet", "hook"),
        ("{retry: 3, jobs: [{}]}", "`retry` of the workflow belongs in one of its jobs", "retry"),
        ("{output: '${output}', jobs: [{}]}", "`${output}`: there is no `output` here", "${output}"),
        (
            "{output: '${jobs.b.output}', jobs: [{id: a}]}",
            "`${jobs.b.output}`: there is no job `b`",
            "${jobs.b.output}",
        ),
        ("{output: {'*': x}, jobs: [{}]}", "`*` takes a list, or a map of `input` and `where`", "'*'"),
        (
            "{repeat_count: 0}",
            "`repeat_count` of the workflow: expected an integer of at least 1, found `0`",
            "0",
        ),
        ("{id: __default__}", "`__default__` is not an id: it means the default workflow", "__default__"),
    ],
)
def test_a_mistake_is_told_where_it_is(text: str, message: str, part: str) -> None:
    found = errors(f"{COMPONENT}workflow: {text}\n")
    assert [(error.message, underlined(error)) for error in found if error.message == message] == [
        (message, part)
    ]


def test_of_several_defaults_and_equal_ids_the_first_is_shown() -> None:
    text = "workflows: [{id: a, default: true}, {id: a, default: true}]\n"
    first, second = errors(COMPONENT + text)
    assert first.message == "two workflows are named `a`"
    assert second.message == "more than one workflow has `default: true`"
    assert [str(error.notes[0].place) for error in (first, second)] == ["f.yml:2:18", "f.yml:2:21"]


def test_a_component_that_nothing_calls_is_a_warning() -> None:
    text = f"components: [{{id: a, {MODEL}}}, {{id: b, {MODEL}}}]\nworkflow: {{component: a}}\n"
    (warning,) = project(text).warnings
    assert warning.message == "component `b` is used by no workflow"
    assert str(warning.place).startswith("f.yml:1:")


def test_mistakes_in_one_job_hide_none_in_the_others() -> None:
    jobs = "[{id: a, type: delay}, {id: b, component: x}, {id: c, input: '${y}'}]"
    text = f"workflow: {{output: '${{jobs.z.output}}', jobs: {jobs}}}"
    assert len(told(f"{COMPONENT}{text}\n")) == 4
    assert "no component `x`" in mistake(f"{COMPONENT}workflow: {{component: x}}\n").message
