"""How outputs are shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from model_compose.types import Blob
from model_compose.ui.results import Shown, Table, shortened, shown

PNG = "data:image/png;base64," + base64.b64encode(b"png").decode()
CSV = "data:text/csv;base64," + base64.b64encode(b"a,b").decode()
VECTOR = [0.5] * 384


def test_a_text_is_shown_as_it_is() -> None:
    assert shown("# Not a *list*") == Shown(text="# Not a *list*")
    assert shown("data: is what it begins with") == Shown(text="data: is what it begins with")


def test_texts_are_a_table() -> None:
    assert shown(["a", "b"]).table == Table(["#", "text"], [[1, "a"], [2, "b"]])


def test_an_image_is_shown_and_a_list_of_them_too() -> None:
    one, two = shown(PNG), shown([PNG, PNG])
    assert [each.blob for each in one.images] == [Blob("image/png", b"png")]
    assert len(two.images) == 2
    assert one.rest is None is two.rest


def test_files_in_a_map_have_its_keys_and_the_rest_is_short() -> None:
    seen = shown({"picture": PNG, "data": {"table": CSV}, "n": 3})
    assert [each.name for each in seen.images] == ["picture"]
    assert [(each.name, each.blob.data) for each in seen.files] == [("data.table", b"a,b")]
    assert seen.rest == {"picture": "image/png, 3 bytes", "data": {"table": "text/csv, 3 bytes"}, "n": 3}


def test_probabilities_are_bars() -> None:
    output = {"label": "good", "score": 0.9, "label_id": 1, "probabilities": [0.1, 0.9]}
    assert shown(output).scores == {"label 0": 0.1, "good": 0.9}
    assert shown({"label": "good", "score": 0.9}).scores == {"good": 0.9}


def test_a_score_of_a_reranker_is_no_probability() -> None:
    assert shown({"label": "LABEL_0", "score": 7.5}).scores is None


def test_labels_are_a_table() -> None:
    table = shown([{"label": "a", "score": 0.123456}, {"label": "b", "score": 1.0}]).table
    assert table == Table(["#", "label", "score"], [[1, "a", 0.1235], [2, "b", 1.0]])


def test_of_vectors_the_first_numbers_are_shown() -> None:
    for given, rows in ((VECTOR, 1), ([VECTOR, VECTOR], 2)):
        table = shown(given).table
        assert table is not None
        assert [row[1] for row in table.rows] == [384] * rows
        assert table.rows[0][2].count("0.5000") == 8


@pytest.mark.parametrize("output", [None, 3, True, {"a": [1, 2]}, [], [[]], [{"label": "a"}]])
def test_anything_else_is_json(output: Any) -> None:
    assert shown(output).rest == output
    assert shown(output).table is None


def test_vectors_in_maps_are_cut_short() -> None:
    short = shortened({"faces": [{"embedding": VECTOR, "score": 0.5}]})
    assert short["faces"][0]["embedding"].startswith("384 numbers: 0.5, ")
