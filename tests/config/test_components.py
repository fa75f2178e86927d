from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from tests.config.catalog import FixedCatalog
from tests.config.projects import MODEL, errors, mistake, project, told, underlined

from model_compose.config.spec import ActionSpec, Catalog, ComponentSpec, Report, doc


class Call(msgspec.Struct, kw_only=True):
    """What a bell takes."""

    times: Annotated[int, doc("how often", ge=1)] = 1


class Bell(msgspec.Struct, frozen=True, kw_only=True):
    """A component of a type of its own."""

    tone: Annotated[str, doc("which sound")] = "c"
    louder: Annotated[Any, doc("how loud", template=True)] = 1
    options: Annotated[dict[str, Any], doc("more")] = {}


class Options(msgspec.Struct, frozen=True):
    clapper: str = "iron"


def ring(config: Bell, catalog: Catalog, report: Report) -> ActionSpec | None:
    if config.tone == "silent":
        report.error("a bell sounds", "tone", hint="choose `c`")
    if config.tone == "loud":
        report.warn("it is very loud", "tone")
    if config.tone == "unknown":
        return None
    options = report.read(Options, "options")
    assert options is None or isinstance(options, Options)
    tree = report.tree("louder")
    assert not report.wrong("tone") or config.tone == "c"
    return ActionSpec(Call, given={"times": tree} if config.tone == "given" else {})


BELLS = FixedCatalog({"bell": ComponentSpec("bell", "Rings.", Bell, ring, "nowhere:Bell")})


def test_a_component_has_the_keys_of_its_type_and_those_of_all() -> None:
    text = "component: {id: door, type: bell, tone: d, default: true, max_concurrent_count: 2, times: 3}"
    (bell,) = project(text, catalog=BELLS).components.values()
    assert (bell.id, bell.type, bell.config) == ("door", "bell", Bell(tone="d"))
    assert (bell.default, bell.max_concurrent_count) == (True, 2)
    assert bell.actions[0].values == {"times": 3}
    assert str(bell.place) == "f.yml:1:12"


class TestWhatATypeSays:
    """A type of component looks at its keys itself, through a `Report`."""

    def test_its_mistakes_and_warnings_have_the_places_of_its_keys(self) -> None:
        (error,) = errors("component: {type: bell, tone: silent}", catalog=BELLS)
        assert (error.message, error.hint, underlined(error)) == ("a bell sounds", "choose `c`", "silent")
        (warning,) = project("component: {type: bell, tone: loud}", catalog=BELLS).warnings
        assert (warning.message, underlined(warning)) == ("it is very loud", "loud")

    def test_it_reads_maps_whose_keys_depend_on_others(self) -> None:
        assert told("component: {type: bell, options: {claper: gold}}", catalog=BELLS) == [
            "unknown field `claper` in `options` of the component"
        ]

    def test_it_may_give_its_actions_values(self) -> None:
        text = "component: {type: bell, tone: given, louder: '${input.n}'}"
        (bell,) = project(text, catalog=BELLS).components.values()
        assert str(bell.actions[0].values["times"].text) == "${input.times}"
        (bell,) = project(text.replace("}'}", "}', action: {}}"), catalog=BELLS).components.values()
        assert str(bell.actions[0].values["times"].text) == "${input.n}"

    def test_its_expressions_refer_to_the_input(self) -> None:
        assert told("component: {type: bell, louder: '${jobs.a.output}'}", catalog=BELLS) == [
            "`${jobs.a.output}`: there is no `jobs` here"
        ]

    def test_it_knows_which_keys_are_wrong(self) -> None:
        assert len(told("component: {type: bell, tone: [d]}", catalog=BELLS)) == 1

    def test_without_an_answer_its_actions_are_not_looked_at(self) -> None:
        assert told("component: {type: bell, tone: unknown, anything: 1}", catalog=BELLS) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("component: bell", 'the component: expected a map, found `"bell"`'),
        ("components: [{id: a}]", "`type` is missing in component `a`"),
        ("component: {type: [bell]}", "`type` of the component: expected text, found a list"),
        ("component: {type: bel}", "unknown component type `bel` in the component"),
        ("component: {type: http-client}", "component type `http-client` is known, and not supported yet"),
        (
            "component: {type: bell, max_concurrent_count: -1}",
            "`max_concurrent_count` of the component: expected an integer of at least 0, found `-1`",
        ),
        ("component: {type: bell, ton: c}", "unknown field `ton` in the component"),
        (
            "component: {type: bell, idle_timeout: 5m}",
            "`idle_timeout` of the component is known, and not supported yet",
        ),
        ("component: {tpye: bell, type: bell}", "unknown field `tpye` in the component"),
    ],
)
def test_a_mistake_in_a_component(text: str, message: str) -> None:
    assert told(text, catalog=BELLS) == [message]


class TestIds:
    def test_components_without_an_id_have_one_only_once(self) -> None:
        assert list(project(f"component: {{{MODEL}}}").components) == ["__component__"]
        error = mistake(f"components: [{{{MODEL}}}, {{{MODEL}}}]")
        assert error.message == "only one component can do without an `id`"
        assert error.hint == "give each an `id`"

    @pytest.mark.parametrize("name", ["a", "a-b_c.d", "7", "1.10", "'true'"])
    def test_an_id_is_letters_digits_and_a_few_signs(self, name: str) -> None:
        (found,) = project(f"component: {{id: {name}, {MODEL}}}").components.values()
        assert found.id == name.strip("'")

    @pytest.mark.parametrize("name", ["a b", "a/b", "..", ".", "''", "한국어", "a:b"])
    def test_other_ids_are_refused(self, name: str) -> None:
        error = mistake(f"component: {{id: {name}, {MODEL}}}")
        assert error.message == f"`{name.strip(chr(39))}` cannot be an id"

    def test_the_default_is_no_name(self) -> None:
        assert "means the default component" in mistake(f"component: {{id: __default__, {MODEL}}}").message

    @pytest.mark.parametrize("name", ["${env.UNSET}", "[a]", "{a: b}", "null"])
    def test_who_names_a_component_whose_id_is_lost_may_be_right(self, name: str) -> None:
        text = f"components: [{{id: {name}, {MODEL}}}, {{id: b, {MODEL}}}]\nworkflow: {{component: a}}\n"
        assert len(errors(text)) == 1

    def test_a_wrong_component_is_there_all_the_same(self) -> None:
        text = "components: [{id: a, type: bel}, {id: b, type: bell}]\nworkflow: {component: a, action: x}"
        assert len(told(text, catalog=BELLS)) == 1


def test_what_a_component_lacks_hides_no_mistake_in_its_other_keys() -> None:
    text = "component: {type: model, model: ./m.gguf, devise: cpu, temperature: 1, params: {}, x-a: 1}"
    assert told(text) == ["unknown field `devise` in the component"]
