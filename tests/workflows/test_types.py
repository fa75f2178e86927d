"""What do the types of jobs do, from a file to what the run tells of them?"""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.workflows.place import Bench, bench, job, until

from model_compose.errors import EngineError, InvalidInput, WorkflowError
from model_compose.workflows.jobs.delay import moment


def states(place: Bench) -> dict[str, str]:
    """The last state of each job."""
    return dict(place.context.jobs)


# Routes

IF = "{id: r, type: if, input: '${input.n}', operator: gt, value: 3, if_true: big, if_false: small}"


@pytest.mark.parametrize(("n", "taken", "other"), [(5, "big", "small"), (1, "small", "big")])
async def test_a_condition_says_which_job_runs(tmp_path: Path, n: int, taken: str, other: str) -> None:
    place = bench(tmp_path, IF, job("big"), job("small"))
    assert await place.run({"n": n}) == taken
    assert states(place) == {"r": "completed", taken: "completed", other: "skipped"}
    assert place.echoes.began == [taken]


async def test_the_first_condition_that_leads_to_a_job_counts(tmp_path: Path) -> None:
    conditions = (
        "[{input: '${input.a}', value: 1, if_true: x},"
        " {input: '${input.b}', operator: starts-with, value: h, if_true: y}]"
    )
    route = f"{{id: r, type: if, conditions: {conditions}, otherwise: z}}"
    place = bench(tmp_path, route, job("x"), job("y"), job("z"))
    assert await place.run({"a": 1, "b": "h"}) == "x"
    assert await place.run({"a": 2, "b": "hello"}) == "y"
    assert await place.run({"a": 2, "b": "bye"}) == "z"


async def test_an_input_of_the_job_is_that_of_its_conditions(tmp_path: Path) -> None:
    conditions = "[{operator: in, value: [1, 2], if_true: x}, {operator: match, value: '[a-z]+', if_true: y}]"
    route = f"{{id: r, type: if, input: '${{input.v}}', conditions: {conditions}}}"
    place = bench(tmp_path, route, job("x"), job("y"))
    assert await place.run({"v": 2}) == "x"
    assert await place.run({"v": "word"}) == "y"
    assert await place.run({"v": 9}) == None  # noqa: E711  nothing ran
    assert set(states(place).values()) == {"completed", "skipped"}


async def test_a_switch_goes_by_a_value(tmp_path: Path) -> None:
    cases = "[{value: en, then: x}, {value: '${input.other}', then: y}]"
    route = f"{{id: r, type: switch, input: '${{input.lang}}', cases: {cases}, otherwise: z}}"
    place = bench(tmp_path, route, job("x"), job("y"), job("z"))
    assert await place.run({"lang": "en", "other": "de"}) == "x"
    assert await place.run({"lang": "de", "other": "de"}) == "y"
    assert await place.run({"lang": "fr", "other": "de"}) == "z"


async def test_a_random_router_goes_by_weights(tmp_path: Path) -> None:
    routings = "[{target: x, weight: 3}, {to: y, weight: 1}]"
    route = f"{{id: r, type: random-router, mode: weighted, routings: {routings}}}"
    place = bench(tmp_path, route, job("x"), job("y"))
    found = Counter([await place.run() for _ in range(400)])
    assert found["x"] > found["y"] > 20  # 300 and 100 are expected, with a deviation of 9


async def test_what_joins_branches_takes_the_one_that_ran(tmp_path: Path) -> None:
    join = job("join", "<${jobs.big.output | ${jobs.small.output}}>")
    place = bench(tmp_path, IF, job("big"), job("small"), join)
    assert await place.run({"n": 1}) == "<small>"
    assert states(place)["big"] == "skipped"


async def test_what_needs_a_branch_that_was_not_taken_is_skipped(tmp_path: Path) -> None:
    place = bench(tmp_path, IF, job("big"), job("small"), job("after", "${jobs.big.output}!"))
    assert await place.run({"n": 1}) == "small"
    assert states(place)["after"] == "skipped"
    assert await place.run({"n": 7}) == "big!"


async def test_one_of_several_is_enough_where_a_file_says_so(tmp_path: Path) -> None:
    place = bench(tmp_path, IF, job("big"), job("small"), job("after", "after", depends_on="[[big, small]]"))
    assert await place.run({"n": 1}) == "after"


async def test_a_job_is_routed_back_to_until_it_is_good(tmp_path: Path) -> None:
    place = bench(
        tmp_path,
        "{id: begin, type: if, input: 1, value: 1, if_true: write}",
        job("write", "${jobs.write_more.output | }a"),
        "{id: write_more, type: filter, input: '${jobs.write.output}'}",
        "{id: check, type: if, input: '${jobs.write_more.output}', operator: match, value: 'aaa',"
        " if_true: done, if_false: write}",
        job("done", "${jobs.write_more.output}."),
    )
    assert await place.run() == "aaa."
    assert place.echoes.ended == ["a", "aa", "aaa", "aaa."]
    assert states(place)["check"] == "completed"


async def test_a_circle_without_an_end_is_ended(tmp_path: Path) -> None:
    place = bench(
        tmp_path,
        "{id: begin, type: if, input: 1, value: 1, if_true: a}",
        job("a", "a", max_run_count="4"),
        "{id: again, type: if, depends_on: a, input: 1, value: 1, if_true: a}",
    )
    with pytest.raises(WorkflowError, match="job `a` has run 4 times"):
        await place.run()
    assert place.echoes.ended == ["a"] * 4


# Filters and delays


async def test_a_filter_gives_its_input_through_its_output(tmp_path: Path) -> None:
    place = bench(tmp_path, "{id: f, type: filter, input: '${input.a}', output: {got: '${output.x}'}}")
    assert await place.run({"a": {"x": 3}}) == {"got": 3}


async def test_a_filter_without_an_input_shapes_that_of_the_workflow(tmp_path: Path) -> None:
    place = bench(tmp_path, "{id: f, type: filter, output: {n: '${output.n}', m: '${input.m}'}}")
    assert await place.run({"n": 1, "m": 2}) == {"n": 1, "m": 2}


async def test_a_filter_keeps_the_items_that_it_admits(tmp_path: Path) -> None:
    where = "{all: [{input: '${item.score}', operator: gte, value: '${input.least}'}]}"
    place = bench(tmp_path, f"{{id: f, type: filter, input: '${{input.rows}}', where: {where}}}")
    rows = [{"score": n} for n in range(1000)]
    assert await place.run({"rows": rows, "least": 998}) == [{"score": 998}, {"score": 999}]
    with pytest.raises(InvalidInput, match="`input` of job `f` is `3`, which is no list"):
        await place.run({"rows": 3, "least": 1})


async def test_a_delay_waits_and_gives_nothing_that_counts(tmp_path: Path) -> None:
    place = bench(
        tmp_path,
        job("a"),
        "{id: d, type: delay, duration: '${input.pause}', depends_on: a}",
        job("b", "b", depends_on="d"),
        "{id: last, type: delay, mode: time-interval, duration: 1ms, depends_on: b}",
    )
    assert await place.run({"pause": "2ms"}) == "b"
    with pytest.raises(InvalidInput, match="`duration` of job `d`"):
        await place.run({"pause": "soon"})


async def test_a_delay_until_a_time_that_is_over_does_not_wait(tmp_path: Path) -> None:
    text = "{id: d, type: delay, time: '2020-01-01T00:00', timezone: Europe/Berlin, output: waited}"
    assert await bench(tmp_path, text).run() == "waited"


async def test_a_delay_can_be_cancelled(tmp_path: Path) -> None:
    place = bench(tmp_path, "{id: d, type: delay, duration: 1d}")
    run = asyncio.create_task(place.run())
    await until(lambda: place.context.jobs)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert states(place) == {"d": "cancelled"}


NOW = datetime.datetime(2030, 3, 30, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("13:30", "2030-03-30T13:30:00+01:00"),
        ("12:00", "2030-03-31T12:00:00+02:00"),  # tomorrow, when the clocks have been changed
        ("08:00+00:00", "2030-03-31T08:00:00+00:00"),
        ("2031-01-01T00:00", "2031-01-01T00:00:00+01:00"),
        ("2031-01-01T00:00Z", "2031-01-01T00:00:00+00:00"),
    ],
)
def test_a_time_is_the_next_one_or_the_one_of_a_date(text: str, then: str) -> None:
    assert moment(text, NOW, "d").isoformat() == then


def test_what_is_no_time_is_told() -> None:
    with pytest.raises(InvalidInput, match='`time` of job `d`: `"noon"` is no time'):
        moment("noon", NOW, "d")


# For each

EACH = "{id: e, type: for-each, input: '${input.texts}', do: {component: echo}%s}"


async def test_an_action_is_called_for_every_item_in_order(tmp_path: Path) -> None:
    place = bench(tmp_path, EACH % "")
    assert await place.run({"texts": list("abc")}) == ["a", "b", "c"]
    assert await place.run({"texts": []}) == []
    assert place.context.jobs[:2] == [("e", "processing"), ("e", "completed")]


async def test_an_item_and_its_index_are_known_in_the_call(tmp_path: Path) -> None:
    output = "{got: '${output}', of: '${item.t}'}"
    do = f"{{component: echo, input: {{prompt: '${{index}}:${{item.t}}'}}, output: {output}}}"
    place = bench(tmp_path, f"{{id: e, type: for-each, input: '${{input.rows}}', do: {do}}}")
    assert await place.run({"rows": [{"t": "a"}, {"t": "b"}]}) == [
        {"got": "0:a", "of": "a"},
        {"got": "1:b", "of": "b"},
    ]


async def test_no_more_calls_are_under_way_than_may_be(tmp_path: Path) -> None:
    place = bench(tmp_path, EACH % ", max_concurrent_count: 2")
    run = asyncio.create_task(place.run({"texts": ["wait a", "wait b", "wait c"]}))
    await until(lambda: place.echoes.began == ["wait a", "wait b"])
    await asyncio.sleep(0)
    assert place.echoes.began == ["wait a", "wait b"]
    place.echoes.gate("b").set()
    await until(lambda: place.echoes.began[2:] == ["wait c"])
    for name in "ac":
        place.echoes.gate(name).set()
    assert await run == ["wait a", "wait b", "wait c"]


async def test_items_may_go_in_batches_whose_results_are_put_together(tmp_path: Path) -> None:
    do = "{component: echo, input: {prompt: '${item}'}}"
    place = bench(tmp_path, f"{{id: e, type: for-each, input: '${{input.t}}', batch_size: 2, do: {do}}}")
    assert await place.run({"t": [1, 2, 3, 4, 5]}) == [1, 2, 3, 4, 5]
    assert place.echoes.ended == ["[1, 2]", "[3, 4]", "[5]"]


async def test_one_item_that_fails_ends_the_others(tmp_path: Path) -> None:
    place = bench(tmp_path, EACH % "")
    with pytest.raises(EngineError, match="it failed"):
        await place.run({"texts": ["wait for ever", "fail it"]})
    assert states(place) == {"e": "failed"}


async def test_ten_thousand_items_take_no_more_memory_than_their_results(tmp_path: Path) -> None:
    place = bench(tmp_path, EACH % ", max_concurrent_count: 8")
    most = 0
    call = place.echoes.call

    async def counted(*given: Any, **more: Any) -> Any:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))
        await asyncio.sleep(0)
        return await call(*given, **more)

    place.echoes.call = counted  # type: ignore[method-assign]
    assert len(await place.run({"texts": ["x"] * 10_000})) == 10_000
    assert most <= 12
    assert len(place.context.jobs) == 2


# Failures


async def test_what_fails_is_tried_again_as_often_as_told(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "flaky 2", retry="{max_attempt_count: 3, delay: 0}"))
    assert await place.run() == "flaky 2"
    assert place.context.told == [
        ("a", "processing", 1, None),
        ("a", "retrying", 1, "not yet"),
        ("a", "processing", 2, None),
        ("a", "retrying", 2, "not yet"),
        ("a", "processing", 3, None),
        ("a", "completed", 3, None),
    ]


@pytest.mark.parametrize(("retry", "calls"), [("{max_retry_count: 1, delay: 0}", 2), ("0", 1)])
async def test_then_it_has_failed(tmp_path: Path, retry: str, calls: int) -> None:
    place = bench(tmp_path, job("a", "flaky 9", retry=retry))
    with pytest.raises(EngineError, match="not yet"):
        await place.run()
    assert len(place.echoes.began) == calls
    assert place.context.told[-1] == ("a", "failed", calls, "not yet")


async def test_a_mistake_of_the_caller_is_not_tried_again(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "invalid", retry="5"))
    with pytest.raises(InvalidInput):
        await place.run()
    assert len(place.echoes.began) == 1


async def test_a_pause_before_another_attempt_can_be_cancelled(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "flaky 9", retry="{delay: 1h, max_delay: 2h}"))
    run = asyncio.create_task(place.run())
    await until(lambda: ("a", "retrying") in place.context.jobs)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert states(place) == {"a": "cancelled"}


@pytest.mark.parametrize("word", ["ignore", "continue"])
async def test_a_failure_may_mean_nothing(tmp_path: Path, word: str) -> None:
    place = bench(tmp_path, job("a", "fail a", on_error=word), job("b", "got ${jobs.a.output}"))
    assert await place.run() == "got "
    assert place.context.told[1] == ("a", "completed", 1, "a failed")


async def test_a_failure_may_have_an_output(tmp_path: Path) -> None:
    said = "{output: {why: '${error.message}', what: '${error.type}', of: '${input.x}'}}"
    place = bench(tmp_path, job("a", "fail a", on_error=said))
    assert await place.run({"x": 1}) == {"why": "a failed", "what": "engine_error", "of": 1}


async def test_another_job_may_run_instead(tmp_path: Path) -> None:
    place = bench(
        tmp_path,
        job("a", "fail a", on_error="{to: other}"),
        job("b", "${jobs.a.output}!"),
        job("other"),
        job("join", "<${jobs.b.output | ${jobs.other.output}}>"),
    )
    assert await place.run() == "<other>"
    assert states(place) == {"a": "failed", "b": "skipped", "other": "completed", "join": "completed"}


async def test_what_stands_by_for_a_failure_is_skipped_where_there_is_none(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "a", on_error="{to: other}"), job("other"))
    assert await place.run() == "a"
    assert states(place) == {"a": "completed", "other": "skipped"}


async def test_an_error_of_another_kind_is_caught_too(tmp_path: Path) -> None:
    place = bench(
        tmp_path, "{id: f, type: filter, input: 3, where: {input: '${item}', value: 1}, on_error: ignore}"
    )
    assert await place.run() is None


async def test_cancelling_is_no_failure(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "wait a", on_error="ignore", retry="3"))
    run = asyncio.create_task(place.run())
    await until(lambda: place.echoes.began)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert place.echoes.began == ["wait a"]
