"""Do merged trees say what they should, and can every path be found in them?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.documents import root_of

from model_compose.config.tree import Entry, Node, locate, locate_key, merge, to_data
from model_compose.errors import Place

NOWHERE = Place("f.yml", 1, 1, 1)


def tree(data: Any) -> Node:
    """A tree of plain data, without places."""
    if isinstance(data, dict):
        return Node({key: Entry(key, NOWHERE, tree(value)) for key, value in data.items()}, NOWHERE)
    if isinstance(data, list):
        return Node(tuple(tree(item) for item in data), NOWHERE)
    return Node(data, NOWHERE)


def merged(base: Any, over: Any) -> Any:
    return to_data(merge(tree(base), tree(over)))


# The name of a key says whether it holds a map, so that it does in all files or in none.
_leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
_maps: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), _leaves, max_size=3),
    lambda inner: st.tuples(
        st.dictionaries(st.sampled_from("abc"), _leaves, max_size=2),
        st.dictionaries(st.sampled_from("MNO"), inner, max_size=2),
    ).map(lambda both: {**both[0], **both[1]}),
    max_leaves=6,
)


@given(_maps, _maps, _maps)
def test_merging_is_associative(a: Any, b: Any, c: Any) -> None:
    a, b, c = tree(a), tree(b), tree(c)
    assert to_data(merge(merge(a, b), c)) == to_data(merge(a, merge(b, c)))


@given(_maps)
def test_an_empty_file_and_the_same_file_change_nothing(a: Any) -> None:
    assert merged(a, {}) == merged({}, a) == merged(a, a) == a


@given(_maps, _maps)
def test_what_the_later_file_says_holds(a: Any, b: Any) -> None:
    def holds(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return isinstance(whole, dict) and all(holds(part[key], whole.get(key)) for key in part)
        return bool(part == whole)

    assert holds(b, merged(a, b))


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"x": 1, "y": 1}}, {"a": {"y": 2, "z": 2}}, {"a": {"x": 1, "y": 2, "z": 2}}),
    ],
)
def test_only_maps_are_merged_and_everything_else_is_replaced(base: Any, over: Any, result: Any) -> None:
    assert merged(base, over) == result


class TestPlaces:
    BASE = root_of("controller:\n  port: 8080\n  host: a\ncomponents:\n  - id: x\n", "base.yml")
    OVER = root_of("# local\ncontroller: {port: 80}\n", "over.yml")

    def test_a_value_that_replaces_another_tells_where_that_stood(self) -> None:
        port = locate(merge(self.BASE, self.OVER), ["controller", "port"])
        assert (port.value, str(port.place)) == (80, "over.yml:2:20")
        assert [(note.message, str(note.place)) for note in port.notes] == [
            ("it replaces this value", "base.yml:2:9")
        ]
        assert str(locate_key(merge(self.BASE, self.OVER), ["controller", "port"]).place) == "over.yml:2:14"

    def test_a_merged_map_tells_both_places(self) -> None:
        controller = locate(merge(self.BASE, self.OVER), ["controller"])
        assert str(controller.place) == "base.yml:2:3"
        assert [(note.message, str(note.place)) for note in controller.notes] == [
            ("it is merged with this map", "over.yml:2:13")
        ]

    def test_a_value_of_one_file_alone_has_no_note(self) -> None:
        host = locate(merge(self.BASE, self.OVER), ["controller", "host"])
        assert (str(host.place), host.notes) == ("base.yml:3:9", ())

    def test_a_path_leads_to_the_node(self) -> None:
        assert locate(self.BASE, ["components", 0, "id"]).value == "x"
        assert str(locate_key(self.BASE, ["components", 0, "id"]).place) == "base.yml:5:5"

    def test_a_path_that_ends_early_leads_to_the_last_node_that_exists(self) -> None:
        components = self.BASE.value["components"].node  # type: ignore[index, call-overload, union-attr]
        assert locate(self.BASE, ["components", 1, "id"]) == components
        assert locate(self.BASE, ["components", "id", 0]) == components
        assert locate(self.BASE, ["nothing", "port"]) == self.BASE
        assert locate(self.BASE, []) == self.BASE
        assert str(locate_key(self.BASE, ["controller", "prot"]).place) == "base.yml:1:1"

    def test_an_item_of_a_list_has_its_own_place_for_a_key(self) -> None:
        assert str(locate_key(self.BASE, ["components", 0]).place) == "base.yml:5:5"
