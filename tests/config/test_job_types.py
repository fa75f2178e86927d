"""Which jobs of each type are right, and what is said of those that are not?"""

from __future__ import annotations

import pytest
from tests.config.projects import MODEL, mistake, project, told, underlined

from model_compose.config.schema import (
    DEFAULT,
    Alternatives,
    Call,
    Delay,
    ForEachJob,
    If,
    Job,
    OnError,
    RandomRouter,
    Retry,
    Switch,
)

COMPONENT = f"component: {{id: c, {MODEL}}}\n"


def jobs(*lines: str) -> dict[str, Job]:
    (workflow,) = project(file_of(*lines)).workflows.values()
    return {job.id: job for job in workflow.jobs}


def file_of(*lines: str) -> str:
    return COMPONENT + "workflow:\n  jobs:\n" + "".join(f"    - {line}\n" for line in lines)


def mistakes(*lines: str) -> list[str]:
    return told(file_of(*lines))


A_B = ("{id: a}", "{id: b}")


class TestRight:
    def test_an_if_with_one_condition(self) -> None:
        found = jobs("{id: r, type: if, input: '${input.x}', value: 1, if_true: a, otherwise: b}", *A_B)
        work = found["r"].work
        assert isinstance(work, If)
        assert (work.targets, work.otherwise) == (("a", "b"), "b")
        assert found["r"].targets == ("a", "b")
        assert not found["r"].gives

    def test_a_switch(self) -> None:
        found = jobs("{id: r, type: switch, input: 1, cases: [{value: x, then: a}], otherwise: b}", *A_B)
        assert found["r"].work == Switch(1, (("x", "a"),), "b")
        assert found["r"].targets == ("a", "b")

    def test_a_random_router(self) -> None:
        found = jobs("{id: r, type: random-router, routings: [{to: a}, {target: b}]}", *A_B)
        assert found["r"].work == RandomRouter(("a", "b"), (1.0, 1.0))

    @pytest.mark.parametrize(
        ("keys", "work"),
        [
            ("duration: 2m", Delay(120.0)),
            ("duration: 3", Delay(3.0)),
            ("mode: time-interval, duration: 500ms", Delay(0.5)),
            ("mode: specific-time, time: '08:00', timezone: UTC", Delay(None, "08:00", "UTC")),
            ("time: 2030-01-01T00:00", Delay(None, "2030-01-01T00:00")),
        ],
    )
    def test_a_delay(self, keys: str, work: Delay) -> None:
        assert jobs(f"{{id: d, type: delay, {keys}}}")["d"].work == work

    def test_a_for_each(self) -> None:
        found = jobs("{id: e, type: for-each, input: [1], batch_size: 4, do: {input: {prompt: x}}}")
        assert found["e"].work == ForEachJob([1], Call("c", DEFAULT, {"prompt": "x"}), batch_size=4)

    @pytest.mark.parametrize(
        ("text", "retry", "attempts"),
        [
            ("2", Retry(max_retry_count=2), 3),
            ("{max_attempt_count: 2, delay: 1m}", Retry(max_attempt_count=2, delay=60.0), 2),
            ("{max_retry_count: 0}", Retry(max_retry_count=0), 1),
            ("{backoff: exponential}", Retry(backoff="exponential"), 3),
        ],
    )
    def test_a_retry(self, text: str, retry: Retry, attempts: int) -> None:
        found = jobs(f"{{id: a, retry: {text}}}")["a"].retry
        assert found == retry
        assert found is not None
        assert found.attempts == attempts

    def test_pauses_grow_up_to_the_longest(self) -> None:
        retry = Retry(backoff="exponential", delay=1.0, max_delay=5.0)
        assert [retry.pause(n) for n in (1, 2, 3, 4, 5000)] == [1, 2, 4, 5, 5]
        assert Retry(delay=2.0).pause(7) == 2

    def test_what_happens_on_an_error(self) -> None:
        found = jobs("{id: a, on_error: {output: '${error.message}', to: b}}", "{id: b}")
        assert found["a"].on_error is not None
        assert found["a"].on_error.to == "b"
        assert jobs("{id: a, on_error: continue}")["a"].on_error == OnError(output=None)

    def test_what_stands_in_for_another_is_waited_for_with_it(self) -> None:
        route = "{id: r, type: if, input: 1, value: 1, if_true: a, if_false: b}"
        found = jobs(
            route,
            *A_B,
            "{id: c, input: {prompt: '${jobs.a.output | ${jobs.b.output}}'}}",
            "{id: d, input: {prompt: '${jobs.a.output | none}'}}",
            "{id: e, depends_on: [[a, b]], input: {prompt: '${jobs.a.output | ${jobs.b.output}}'}}",
        )
        assert found["c"].alternatives == (Alternatives(("a", "b")),)
        assert found["d"].alternatives == (Alternatives(("a",), fallback=True),)
        assert (found["e"].any_of, found["e"].alternatives) == ((("a", "b"),), ())

    def test_what_is_run_again_may_refer_to_the_run_before(self) -> None:
        found = jobs(
            "{id: begin, type: if, input: 1, value: 1, if_true: a}",
            "{id: a, input: {prompt: '${jobs.b.output | first}'}}",
            "{id: b, input: {prompt: '${jobs.a.output}'}}",
            "{id: again, type: if, input: '${jobs.b.output}', value: x, if_false: a}",
        )
        assert found["a"].needs == ()

    def test_jobs_of_any_type_may_stand_alone(self) -> None:
        text = f"{COMPONENT}workflow: {{type: filter, input: '${{input.x}}', output: {{y: '${{output}}'}}}}"
        assert project(text).workflows["__workflow__"].jobs[0].id == "__job__"


@pytest.mark.parametrize(
    ("line", "message", "part"),
    [
        ("{id: r, type: if, input: 1, value: 1, if_true: x}", "there is no job `x`", "x"),
        ("{id: r, type: if, input: 1, value: 1, if_true: r}", "job `r` starts itself", "r"),
        ("{id: r, type: if, input: 1, value: 1}", "a condition has `if_true`, `if_false` or both", None),
        ("{id: r, type: if, value: 1, if_true: a}", "a condition of job `r` needs `input`", None),
        ("{id: r, type: if, input: 1, if_true: a}", "a condition of job `r` needs `value`", None),
        (
            "{id: r, type: if, input: 1, operator: like, value: 1, if_true: a}",
            (
                "`operator` of job `r`: expected one of `eq`, `neq`, `gt`, `gte`, `lt`, `lte`, `in`, "
                '`not-in`, `match`, `starts-with`, `ends-with`, found `"like"`'
            ),
            "like",
        ),
        (
            "{id: r, type: if, value: 1, conditions: [{input: 1, value: 1, if_true: a}]}",
            "`value` stands beside `conditions`",
            "value",
        ),
        (
            "{id: r, type: if, input: 1, operator: match, value: '(', if_true: a}",
            '`"("` is not a regular expression: missing ), unterminated subpattern at position 0',
            "'('",
        ),
        (
            "{id: r, type: if, input: '${inptu}', value: 1, if_true: a}",
            "`${inptu}`: there is no `inptu` here",
            None,
        ),
        ("{id: r, type: switch, input: 1, cases: [{value: 1, then: x}]}", "there is no job `x`", "x"),
        ("{id: r, type: switch, input: 1, cases: []}", "`cases` is an empty list", "[]"),
        ("{id: r, type: switch, cases: [{value: 1, then: a}]}", "`input` is missing in job `r`", None),
        (
            "{id: r, type: random-router, routings: [{target: a, weight: 2}]}",
            "`weight` means nothing with `mode: uniform`",
            "weight",
        ),
        ("{id: r, type: delay}", "`duration` is missing in job `r`", None),
        (
            "{id: r, type: delay, duration: soon}",
            (
                "`duration` of job `r`: expected a duration of at least 0, such as `500ms`, `30s`, `5m` or "
                '`1h30m`, found `"soon"`'
            ),
            "soon",
        ),
        (
            "{id: r, type: delay, duration: 1s, time: '08:00'}",
            "`duration` means nothing beside `time`",
            "duration",
        ),
        ("{id: r, type: delay, time: noon}", '`"noon"` is no time', "noon"),
        ("{id: r, type: delay, time: '08:00', timezone: Mars}", "there is no timezone `Mars`", "Mars"),
        (
            "{id: r, type: filter, where: {input: 1, value: 1}}",
            "`where` needs `input`: the list whose items it looks at",
            "where",
        ),
        ("{id: r, type: filter, input: [1], where: {input: 1}}", "a condition needs `value`", None),
        ("{id: r, type: filter, input: '${item}'}", "`${item}`: there is no `item` here", "${item}"),
        (
            "{id: r, type: filter, component: c}",
            "`component` of job `r` means nothing for type `filter`",
            "component",
        ),
        ("{id: r, cases: []}", "`cases` of job `r` means nothing for type `component`", "cases"),
        ("{id: r, type: for-each, input: [1]}", "`do` is missing in job `r`", None),
        ("{id: r, type: for-each, input: [1], do: {component: x}}", "there is no component `x`", "x"),
        (
            "{id: r, type: for-each, input: [1], do: {input: {x: 1}}}",
            "the action takes no `x` from its input",
            "x",
        ),
        (
            "{id: r, retry: {max_attempt_count: 1, max_retry_count: 1}}",
            "`retry` of job `r`: `max_attempt_count` and `max_retry_count` say the same; keep one",
            None,
        ),
        ("{id: r, retry: -1}", None, "-1"),
        ("{id: r, on_error: {}}", "`on_error` has neither `output` nor `to`", "{}"),
        ("{id: r, on_error: {to: x}}", "there is no job `x`", "x"),
        (
            "{id: r, on_error: {output: '${error.text}'}}",
            "`${error.text}`: `error` has no `text`",
            "${error.text}",
        ),
        (
            "{id: r, input: '${error.message}'}",
            "`${error.message}`: there is no `error` here",
            "${error.message}",
        ),
        ("{id: r, interrupt: {}}", "`interrupt` of job `r` is known, and not supported yet", "interrupt"),
    ],
)
def test_a_mistake_is_told_where_it_is(line: str, message: str | None, part: str | None) -> None:
    error = mistake(file_of(line, "{id: a}"))
    assert message is None or error.message == message
    assert part is None or underlined(error) == part


def test_a_job_that_never_runs_is_a_warning() -> None:
    text = file_of("{id: r, type: if, depends_on: b, input: 1, value: 1, if_true: b}", "{id: b}", "{id: c}")
    assert sorted(note.message for note in project(text).warnings) == [
        "job `b` never runs: nothing that leads to it does",
        "job `r` never runs: nothing that leads to it does",
    ]
