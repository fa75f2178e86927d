"""What does a check say of a vector store?"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from tests.compose.apps import project_of

from model_compose.config.schema import Component
from model_compose.errors import ConfigErrors

FILE = """
workflow: {jobs: [{component: store, action: search}]}
component:
  id: store
  type: vector-store
"""


def declared(keys: str, folder: Path) -> Component:
    return project_of(FILE + textwrap.indent(keys, "  "), folder).components["store"]


def said(keys: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        declared(keys, folder)
    return [error.message for error in caught.value.errors]


def test_a_store_that_says_nothing_keeps_a_file_and_does_everything(tmp_path: Path) -> None:
    store = declared("", tmp_path)
    assert [action.id for action in store.actions] == ["insert", "update", "search", "delete"]
    assert (store.config.driver, store.config.folder, store.config.metric) == (
        "sqlite",
        "./vectors",
        "cosine",
    )
    assert not store.config.served


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("host: db", "driver `sqlite` has no `host`"),
        ("mode: server", "driver `sqlite` has no server"),
        ("driver: pgvector", "`host` or `endpoint` is missing: where is PostgreSQL?"),
        ("{driver: pgvector, host: db, protocol: https}", "driver `pgvector` has no `protocol`"),
        ("{driver: pgvector, host: db, storage_dir: x}", "`storage_dir` is of no use with a server"),
        ("{driver: qdrant, port: 1}", "`port` belongs to a server, and none is named"),
        ("{driver: qdrant, endpoint: 'http://x', port: 1}", "`endpoint` says what `port` says"),
        ("{driver: chroma, mode: local, host: x}", "`mode: local` has no server, and `host` names one"),
        ("{driver: chroma, mode: server}", "`host` or `endpoint` is missing: where is the server?"),
        ("driver: faiss", "`faiss` as `driver` of component `store` is known, and not supported yet"),
    ],
)
def test_keys_about_a_place_that_do_not_go_together_are_named(
    tmp_path: Path, keys: str, message: str
) -> None:
    keys = keys.strip("{}").replace(", ", "\n") if keys.startswith("{") else keys
    assert any(message in each for each in said(keys, tmp_path)), said(keys, tmp_path)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("{method: search, filter: \"lang == 'en'\"}", "driver `sqlite` has no filters that are text"),
        ("{method: search, filter: {lang: {like: e}}}", "`filter.lang` has an unknown operator `like`"),
        ("{method: search, filter: \"lang == '${input.lang}'\"}", "a filter that is text has no `${...}`"),
        ("{method: search, id_field: pk}", "`id_field` cannot be used here"),
        ("{method: insert, batch_size: 5}", "`batch_size` cannot be used here"),
        ("{method: insert, top_k: 5}", "unknown field `top_k`"),
        ("{method: find}", "`method` of action `one` of component `store` cannot be"),
        ("{}", "`method` of action `one` of component `store` is missing"),
        ("{method: search, top_k: 0}", "`top_k`"),
        ("{method: search, metric_type: dot}", "`metric_type`"),
    ],
)
def test_an_action_that_cannot_work_is_refused(tmp_path: Path, action: str, message: str) -> None:
    body = action[1:-1]
    keys = "collection: c\nactions:\n  - {id: search, method: search}\n  - {id: one, " + body + "}"
    assert any(message in each for each in said(keys, tmp_path)), said(keys, tmp_path)


def test_an_action_without_a_collection_is_refused(tmp_path: Path) -> None:
    assert "`collection` is missing" in said("actions: [{id: search, method: search}]", tmp_path)


def test_a_native_filter_is_for_a_driver_that_has_a_language(tmp_path: Path) -> None:
    keys = "driver: milvus\nactions:\n  - {id: search, method: search, collection: c, filter: 'year > 1'}"
    assert declared(keys, tmp_path).actions[0].values["filter"] == "year > 1"


def test_a_client_chooses_a_collection_only_where_the_file_does_not(tmp_path: Path) -> None:
    free, fixed = declared("", tmp_path), declared("collection: mine", tmp_path)
    assert free.action("search").values["collection"].key == "input"
    assert fixed.action("search").values["collection"] == "mine"
