from __future__ import annotations

import pytest
from msgspec import UNSET
from tests.config.projects import MODEL, errors, mistake, project, told, underlined

from model_compose.config.schema import DEFAULT, Call, Job

COMPONENTS = f"""
components:
  - {{id: write, {MODEL}, prompt: "${{input.text}}", output: {{answer: "${{result.text}}"}}}}
  - {{id: plain, {MODEL}, default: true}}
  - id: several
    {MODEL.replace(", ", chr(10) + "    ")}
    actions:
      - {{id: short, prompt: "${{input.text}}"}}
      - {{id: long, prompt: "${{input}}"}}
"""


def jobs(text: str) -> dict[str, Job]:
    (workflow,) = project(f"{COMPONENTS}\nworkflow:\n  jobs: {text}\n").workflows.values()
    return {job.id: job for job in workflow.jobs}


def mistakes(text: str) -> list[str]:
    return told(f"{COMPONENTS}\nworkflow:\n  jobs: {text}\n")


class TestCalls:
    def test_a_job_calls_what_it_names_or_the_default(self) -> None:
        found = jobs("[{id: a, component: write}, {id: b}, {id: c, component: several, action: long}]")
        assert [job.work for job in found.values()] == [
            Call("write", DEFAULT),
            Call("plain", DEFAULT),
            Call("several", "long"),
        ]
        assert found["a"] == Job("a", Call("write", DEFAULT))

    def test_the_two_names_of_a_call_mean_the_same(self) -> None:
        found = jobs("[{id: a, type: component}, {id: b, type: action}]")
        assert found["a"].work == found["b"].work == Call("plain", DEFAULT)

    def test_a_component_may_stand_in_its_job(self) -> None:
        text = (
            f"[{{id: a, component: {{{MODEL}, device: cpu}}}}, {{id: b, component: {{id: mine, {MODEL}}}}}]"
        )
        whole = project(f"{COMPONENTS}\nworkflow:\n  id: w\n  jobs: {text}\n")
        assert [job.call and job.call.component for job in whole.workflows["w"].jobs] == ["w:a", "mine"]
        assert whole.components["w:a"].id == "w:a"
        assert whole.components["w:a"].config.device == "cpu"

    def test_components_without_a_name_in_jobs_do_not_share_one(self) -> None:
        inline = f"{{component: {{{MODEL}, device: cpu}}}}, {{id: b, component: {{{MODEL}, device: mps}}}}"
        text = f"workflows: [{{id: w, jobs: [{inline}]}}, {{id: v, component: {{{MODEL}, device: cuda}}}}]"
        found = project(text)
        devices = {name: component.config.device for name, component in found.components.items()}
        assert devices == {"w:__job__": "cpu", "w:b": "mps", "v:__job__": "cuda"}

    def test_a_component_in_a_job_is_called_by_nobody_else_and_is_no_default(self) -> None:
        inline = f"{{id: a, component: {{id: mine, {MODEL}}}}}"
        assert told(f"workflow: {{jobs: [{inline}, {{id: b, component: mine}}]}}") == [
            "there is no component `mine`"
        ]
        assert "and there is none" in mistake(f"workflow: {{jobs: [{inline}, {{id: b}}]}}").message
        assert jobs(f"[{inline}, {{id: b}}]")["b"].work == Call("plain", DEFAULT)

    def test_a_name_of_a_declared_component_is_taken(self) -> None:
        assert mistakes(f"[{{component: {{id: write, {MODEL}}}}}]") == ["two components are named `write`"]

    def test_expressions_in_a_component_of_a_job_are_those_of_a_component(self) -> None:
        text = f"workflow: {{component: {{{MODEL}, prompt: '${{input.q}}', id: mine}}}}"
        assert project(text).components["mine"].actions[0].values["prompt"].field == "q"
        assert told(text.replace("input.q", "jobs.q")) == ["`${jobs.q}`: there is no `jobs` here"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[{component: writ}]", "there is no component `writ`"),
            ("[{component: '${input.x}'}]", "`component` is neither an id nor a component"),
            ("[{component: [write]}]", "`component` is neither an id nor a component"),
            ("[{component: {type: modle}}]", "unknown component type `modle` in the component"),
            ("[{component: several}]", "component `several` has several actions, and none is the default"),
            ("[{component: several, action: shrt}]", "component `several` has no action `shrt`"),
            ("[{component: write, action: other}]", "component `write` has no action `other`"),
            (
                "[{type: router, routes: {}}]",
                "`router` as `type` of the job of the workflow is known, and not supported yet",
            ),
            (
                "[{type: jump}]",
                (
                    "`type` of the job of the workflow: expected one of `component`, `action`, `delay`, "
                    '`if`, `switch`, `random-router`, `filter`, `for-each`, found `"jump"`'
                ),
            ),
            ("[{hook: x}]", "`hook` of the job of the workflow is known, and not supported yet"),
            ("[{compnent: write}]", "unknown field `compnent` in the job of the workflow"),
            ("[write]", 'the job of the workflow: expected a map, found `"write"`'),
            ("[{id: [a]}]", "`id` of the job of the workflow: expected text, found a list"),
            ("[{id: a.b}]", "`a.b` cannot be an id"),
            (
                "[{id: a, repeat_count: 0}]",
                "`repeat_count` of job `a`: expected an integer of at least 1, found `0`",
            ),
        ],
    )
    def test_a_mistake_is_told(self, text: str, message: str) -> None:
        assert mistakes(text) == [message]

    def test_without_a_clear_default_a_job_names_its_component(self) -> None:
        text = f"components: [{{id: a, {MODEL}}}, {{id: b, {MODEL}}}]\nworkflow: {{title: x}}"
        error = mistake(text)
        assert error.message == "no component is named here, and none is the default"
        assert error.hint == "write `component:` with one of `a`, `b`, or mark one of them `default: true`"


class TestOrder:
    def test_a_reference_to_a_job_waits_for_it(self) -> None:
        found = jobs(
            "[{id: a}, {id: b, input: {prompt: '${jobs.a.output.text}'}},"
            " {id: c, depends_on: a, input: {prompt: x}, output: '${jobs.b.output}'},"
            " {id: d, depends_on: [c, b], input: {prompt: 'x ${input.y | ${jobs.a.output}}'}}]"
        )
        assert {name: job.needs for name, job in found.items()} == {
            "a": (),
            "b": ("a",),
            "c": ("a", "b"),
            "d": ("c", "b", "a"),
        }

    @pytest.mark.parametrize(
        ("text", "message", "part"),
        [
            ("[{id: a, depends_on: b}]", "there is no job `b`", "b"),
            ("[{id: a}, {id: b, depends_on: [a, c]}]", "there is no job `c`", "c"),
            ("[{id: a}, {id: b, depends_on: [5]}]", "there is no job `5`", "5"),
            ("[{id: a, depends_on: a}]", "job `a` waits for itself", "{id: a, depends_on: a}"),
            ("[{id: a, output: '${jobs.a.output}'}]", "job `a` waits for itself", None),
            ("[{id: a, depends_on: [[b]]}]", "there is no job `b`", "b"),
            (
                "[{id: a, depends_on: [[]]}]",
                "a list inside `depends_on` names at least one job",
                "[]",
            ),
            (
                "[{id: a, depends_on: {b: c}}]",
                "`depends_on` of job `a`: expected text or a list, found a map",
                "{b: c}",
            ),
        ],
    )
    def test_what_cannot_be_waited_for_is_told(self, text: str, message: str, part: str | None) -> None:
        error = mistake(f"{COMPONENTS}\nworkflow:\n  jobs: {text}\n")
        assert error.message == message
        assert part is None or underlined(error) == part

    def test_every_ring_is_told_once(self) -> None:
        found = mistakes(
            "[{id: a, depends_on: b}, {id: b, depends_on: [a, c]}, {id: c, depends_on: [b, a]},"
            " {id: d, input: {prompt: '${jobs.e.output}'}}, {id: e, depends_on: d}, {id: f, depends_on: a}]"
        )
        assert found == [
            "jobs wait for each other: `a` -> `b` -> `a`",
            "jobs wait for each other: `d` -> `e` -> `d`",
        ]

    def test_a_job_of_a_ring_that_waits_for_itself_is_told_too(self) -> None:
        found = mistakes("[{id: a, depends_on: [b, a]}, {id: b, depends_on: a}]")
        assert sorted(found) == [
            "job `a` waits for itself",
            "jobs wait for each other: `a` -> `b` -> `a`",
        ]

    def test_the_jobs_of_a_ring_are_told_with_their_places(self) -> None:
        text = "workflow:\n  jobs:\n    - {id: a, depends_on: b}\n    - {id: b, depends_on: a}\n"
        error = mistake(f"component: {{{MODEL}}}\n{text}")
        places = [str(error.place), *(str(note.place) for note in error.notes)]
        assert places == ["f.yml:4:7", "f.yml:5:7"]


class TestReferences:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[{input: '${result}'}]", "`${result}`: there is no `result` here"),
            ("[{input: '${item}'}]", "`${item}`: there is no `item` here"),
            ("[{output: '${index}'}]", "`${index}`: there is no `index` here"),
            ("[{repeat_count: '${output}'}]", "`${output}`: there is no `output` here"),
            ("[{input: '${jobs}'}]", "`${jobs}`: name the output of a job"),
            ("[{id: a}, {id: b, input: '${jobs.a}'}]", "`${jobs.a}`: name the output of a job"),
            (
                "[{id: a}, {id: b, input: '${jobs.a.result}'}]",
                "`${jobs.a.result}`: a job has only an `output`",
            ),
            ("[{input: '${jobs[0].output}'}]", "`${jobs[0].output}`: name a job"),
            ("[{id: a}, {id: b, input: '${jobs.c.output}'}]", "`${jobs.c.output}`: there is no job `c`"),
            ("[{component: write, output: '${output.text}'}]", "`${output.text}`: `output` has no `text`"),
            ("[{output: '${result.txt}'}]", "`${result.txt}`: `result` has no `txt`"),
            (
                "[{id: a, component: write}, {id: b, input: {prompt: '${jobs.a.output.text}'}}]",
                "`${jobs.a.output.text}`: the output of job `a` has no `text`",
            ),
            (
                "[{id: a, output: {x: 1}}, {id: b, input: {prompt: '${jobs.a.output.y.z}'}}]",
                "`${jobs.a.output.y.z}`: the output of job `a` has no `y`",
            ),
            ("[{input: '${context.id}'}]", "`${context.id}`: `context` has no `id`"),
        ],
    )
    def test_what_names_nothing_is_told(self, text: str, message: str) -> None:
        assert mistakes(text) == [message]

    @pytest.mark.parametrize(
        "text",
        [
            "[{output: '${result.text} ${output.usage.total_tokens} ${response.text} ${context.task_id}'}]",
            "[{output: {t: '${result[].text}', l: '${output[].logprob}'}}]",
            "[{component: write, output: '${output.answer.whatever}'}]",
            "[{id: a}, {id: b, input: {prompt: '${jobs.a.output.text}'}}]",
            "[{id: a, repeat_count: 2}, {id: b, input: {prompt: '${jobs.a.output[0].text}'}}]",
            "[{id: a, output: '${output.text as json}'}, {id: b, input: {prompt: '${jobs.a.output.x.y}'}}]",
            "[{id: a, output: {'...': '${output}'}}, {id: b, input: {prompt: '${jobs.a.output.any}'}}]",
            "[{input: {'*': '${input.rows}', prompt: '${item.text} ${index}'}}]",
            "[{repeat_count: '${input.n as integer}', input: '${input}'}]",
        ],
    )
    def test_what_may_be_there_is_not_told(self, text: str) -> None:
        assert mistakes(text) == []

    def test_jobs_with_lost_ids_may_be_what_is_named(self) -> None:
        lost = "[{id: '${env.UNSET}'}, {id: b, input: '${jobs.a.output}', depends_on: a}]"
        text = f"{COMPONENTS}\nworkflow:\n  jobs: {lost}\n"
        assert len(errors(text)) == 1


class TestInputs:
    @pytest.mark.parametrize(
        "text",
        [
            "[{component: write, input: {text: x}}]",
            "[{component: write, input: {}}]",
            "[{component: write, input: x}]",
            "[{component: write, input: '${input.anything}'}]",
            "[{component: write, input: {'...': '${input}'}}]",
            "[{component: several, action: long, input: {anything: 1}}]",
            "[{input: {prompt: x, temperature: 0, stop: a}}]",
        ],
    )
    def test_an_action_gets_what_it_looks_at(self, text: str) -> None:
        assert mistakes(text) == []

    def test_a_key_that_the_action_does_not_look_at_is_told(self) -> None:
        error = mistake(
            f"{COMPONENTS}\nworkflow:\n  jobs: [{{component: write, input: {{txt: '${{input.x}}'}}}}]\n"
        )
        assert error.message == "the action takes no `txt` from its input"
        assert (error.hint, underlined(error)) == ("did you mean `text`?", "txt")

    def test_an_action_may_take_nothing(self) -> None:
        text = f"component: {{{MODEL}, prompt: constant}}\nworkflow: {{input: {{a: 1}}}}"
        assert mistake(text).hint == "it takes no input"


def test_what_a_job_does_not_say_is_not_set() -> None:
    (job,) = jobs("[{}]").values()
    assert job.work == Call("plain", DEFAULT, UNSET, 1)
    assert job.output is UNSET
