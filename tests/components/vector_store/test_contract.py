"""What must hold whoever keeps the vectors?"""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.components.vector_store import servers
from tests.components.vector_store.stores import LOCAL, Client, store_of
from tests.compose.apps import app_of, output_of
from tests.fakes.qdrant import qdrant

from model_compose.errors import InvalidInput, NotFound

A, B, C = [1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 2.0]
THINGS = [
    {"lang": "en", "year": 2019, "draft": False},
    {"lang": "de", "year": 2021.5, "draft": True},
    {"lang": "fr"},
]


#: Who is asked: by driver, or a driver's server.
_PROCESSES = ("chroma server", "pgvector")
DRIVERS = [*LOCAL, "qdrant server", *(pytest.param(each, marks=pytest.mark.process) for each in _PROCESSES)]


@pytest.fixture(scope="module")
def pg() -> Iterator[str]:
    with servers.postgres() as host:
        yield host


@pytest.fixture(scope="module")
def chroma_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with servers.chroma(tmp_path_factory.mktemp("chroma")) as port:
        yield port


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def keys(driver: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The keys of a component, of which each test has a store of its own."""
    collection = f"things-{uuid.uuid4().hex}"
    if driver == "pgvector":
        host = request.getfixturevalue("pg")
        yield f"driver: pgvector\nhost: {host}\nuser: tester\ndatabase: postgres\ncollection: {collection}"
    elif driver == "chroma server":
        port = request.getfixturevalue("chroma_port")
        yield f"driver: chroma\nhost: 127.0.0.1\nport: {port}\ncollection: {collection}"
    elif driver == "qdrant server":
        with qdrant(key="k3y") as fake:
            yield f"driver: qdrant\nendpoint: http://127.0.0.1:{fake.port}\ntoken: k3y\ncollection: things"
    else:
        yield f"driver: {driver}\nstorage_dir: kept\ncollection: things"


@pytest.fixture
async def store(keys: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with store_of(keys, tmp_path) as client:
        yield client


async def fill(store: Client) -> None:
    await store.insert(
        vector=[A, B, C], vector_id=["a", "b", "c"], metadata=THINGS, document=["one", "two", None]
    )


async def test_what_is_inserted_is_found_the_nearest_first(store: Client) -> None:
    made = await store.insert(
        vector=[A, B, C], vector_id=["a", "b", "c"], metadata=THINGS, document=["one", "two", None]
    )
    assert made == {"ids": ["a", "b", "c"], "affected_rows": 3}
    first, second, third = await store.search(query=A)
    assert first["id"] == "a"
    assert first["distance"] == pytest.approx(0, abs=1e-6)
    assert first["score"] == pytest.approx(1, abs=1e-6)
    assert first["metadata"] == THINGS[0]
    assert first["document"] == "one"
    assert second["id"] == "b"
    assert second["distance"] == pytest.approx(0.2, abs=1e-6)
    assert second["score"] == pytest.approx(1 / 1.2, abs=1e-6)
    assert third["distance"] == pytest.approx(1, abs=1e-6)
    assert "document" not in third
    assert "vector" not in third


async def test_one_vector_gets_an_id_where_it_has_none(store: Client) -> None:
    made = await store.insert(vector=A, metadata={"lang": "en"}, document="one")
    assert made["affected_rows"] == 1
    [hit] = await store.search(vector=A, top_k=5)  # `vector` is another name for `query`
    assert [hit["id"]] == made["ids"]
    assert hit["metadata"] == {"lang": "en"}


async def test_numbers_are_ids_as_text(store: Client) -> None:
    assert (await store.insert(vector=[A, B], vector_id=[7, 8]))["ids"] == ["7", "8"]
    assert (await store.delete(vector_id=7)) == {"affected_rows": 1}
    assert await store.ids() == ["8"]


async def test_several_queries_have_a_list_of_results_each(store: Client) -> None:
    await fill(store)
    found = await store.search(query=[A, C], top_k=1)
    assert [[hit["id"] for hit in each] for each in found] == [["a"], ["c"]]
    assert [[hit["id"] for hit in each] for each in await store.search(query=[C], top_k=1)] == [["c"]]


async def test_a_result_has_what_is_asked_for(store: Client) -> None:
    await fill(store)
    [hit] = await store.search(query=B, top_k=1, output_fields=["year", "none"], include_vectors=True)
    assert hit["metadata"] == {"year": 2021.5}
    assert hit["vector"] == pytest.approx(B)


FILTERS: list[tuple[Any, list[str]]] = [
    ({"lang": "en"}, ["a"]),
    ({"lang": "en", "year": 2019}, ["a"]),
    ({"lang": "en", "year": 2020}, []),
    ({"year": {"gte": 2019, "lt": 2021}}, ["a"]),
    ({"year": {"gt": 2019}}, ["b"]),
    ({"year": {"lte": 2021.5}}, ["a", "b"]),
    ({"year": 2021.5}, ["b"]),
    ({"year": 2019.0}, ["a"]),
    ({"draft": True}, ["b"]),
    ({"draft": 1}, []),
    ({"year": "2019"}, []),
    ({"lang": {"neq": "en"}}, ["b", "c"]),
    ({"year": {"neq": 2019}}, ["b", "c"]),
    ({"lang": {"in": ["de", "fr"]}}, ["b", "c"]),
    ({"year": {"in": [2019, 5]}}, ["a"]),
    ({"lang": {"in": []}}, []),
    ({"lang": {"not-in": ["de", "fr"]}}, ["a"]),
    ({"year": {"not-in": [2019]}}, ["b", "c"]),
    ({"lang": {"not-in": []}}, ["a", "b", "c"]),
    ([{"field": "lang", "operator": "eq", "value": "de"}], ["b"]),
    ([{"field": "lang", "value": "de"}, {"field": "year", "operator": "gt", "value": 3000}], []),
    ({}, ["a", "b", "c"]),
    ({"lang": "' or 1=1 --"}, []),
    ({"no such field": 1}, []),
]


async def test_a_filter_chooses_by_metadata(store: Client, driver: str) -> None:
    await fill(store)
    found = [(given, await store.ids(filter=given)) for given, _ in FILTERS]
    if driver == "milvus":  # to milvus-lite, true is 1
        found = [(given, [] if repr(given) == "{'draft': 1}" else ids) for given, ids in found]
    assert found == FILTERS


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"year": {"exists": True}}, ["a", "b"]),
        ({"year": {"exists": False}}, ["c"]),
        ({"lang": {"starts-with": "d"}}, ["b"]),
        ({"lang": {"gt": "de"}}, ["a", "c"]),
    ],
    ids=str,
)
async def test_a_filter_that_not_all_have_works_or_is_refused(
    store: Client,
    driver: str,
    filter: dict[str, Any],  # noqa: A002
    expected: list[str],
) -> None:
    await fill(store)
    [operator] = next(iter(filter.values()))
    has_none = {"chroma": {"exists", "starts-with", "gt"}, "qdrant": {"starts-with", "gt"}}
    if operator in has_none.get(driver.split()[0], ()):
        with pytest.raises(InvalidInput, match=f"driver `.*` has no `{operator}`"):
            await store.ids(filter=filter)
    else:
        assert await store.ids(filter=filter) == expected


async def test_a_filter_leaves_as_many_as_are_asked_for(store: Client) -> None:
    vectors = [[math.cos(i / 50), math.sin(i / 50), 0.0] for i in range(60)]
    await store.insert(
        vector=vectors, vector_id=list(range(60)), metadata=[{"last": i >= 50} for i in range(60)]
    )
    assert await store.ids(filter={"last": True}, top_k=3) == ["50", "51", "52"]


async def test_an_update_changes_what_it_names_and_nothing_else(store: Client) -> None:
    await fill(store)
    assert await store.update(vector_id="a", metadata={"lang": "ko"}) == {"affected_rows": 1}
    [hit] = await store.search(query=A, top_k=1)
    assert hit["metadata"] == {"lang": "ko"}
    assert hit["document"] == "one"
    assert await store.ids(filter={"year": 2019}) == []
    assert await store.ids(filter={"lang": "ko"}) == ["a"]
    await store.update(vector_id=["a", "b"], vector=[C, A], document=["uno", "due"])
    found = await store.search(query=A)
    assert [(hit["id"], hit["document"]) for hit in found[:1]] == [("b", "due")]
    assert found[0]["metadata"] == THINGS[1]


async def test_an_update_adds_what_is_not_there_unless_told_otherwise(store: Client) -> None:
    await fill(store)
    assert await store.update(vector_id=["a", "d"], vector=[A, B], insert_if_not_exist=False) == {
        "affected_rows": 1
    }
    assert await store.update(vector_id=["a", "d"], vector=[A, B]) == {"affected_rows": 2}
    assert sorted(await store.ids()) == ["a", "b", "c", "d"]
    with pytest.raises(InvalidInput, match="there is no `e`"):
        await store.update(vector_id="e", document="five")


async def test_a_delete_says_how_many_there_were(store: Client) -> None:
    await fill(store)
    assert await store.delete(vector_id=["a", "x"]) == {"affected_rows": 1}
    assert await store.delete(filter={"lang": "de"}) == {"affected_rows": 1}
    assert await store.delete(vector_id="c", filter={"lang": "de"}) == {"affected_rows": 0}
    assert await store.ids() == ["c"]
    with pytest.raises(InvalidInput, match="what is to be deleted"):
        await store.delete()
    with pytest.raises(InvalidInput, match="what is to be deleted"):
        await store.delete(filter={})


async def test_an_id_can_be_used_again_when_it_is_free(store: Client) -> None:
    await fill(store)
    with pytest.raises(InvalidInput, match="`b` is there already"):
        await store.insert(vector=[A, B], vector_id=["new", "b"])
    await store.delete(vector_id="b")
    await store.insert(vector=B, vector_id="b")
    assert await store.ids() == ["a", "b", "c"]


async def test_a_collection_that_is_not_there_is_said_to_be_so(store: Client) -> None:
    with pytest.raises(NotFound, match="no collection `things"):
        await store.search(query=A)
    with pytest.raises(NotFound, match="no collection `things"):
        await store.update(vector_id="a", vector=A, insert_if_not_exist=False)
    # What is read again forgets first what it had stored, the first time, too.
    assert await store.delete(vector_id="a") == {"affected_rows": 0}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"vector": [1.0, 2.0]}, "`vector` has 2 numbers, and those of `things.*` have 3"),
    ({"vector": [A, [1.0]]}, r"`vector\[1\]` has 1 numbers, and the first has 3"),
    ({"vector": "abc"}, "`vector`: expected a list"),
    ({"vector": [1.0, "x", 2.0]}, "`vector` is no list of numbers"),
    ({"vector": [True, False, True]}, "`vector` is no list of numbers"),
    ({"vector": []}, "`vector` is empty"),
    ({"vector": [1e300, 0.0, 0.0]}, "not finite"),
    ({"vector": [0.0, 0.0, 0.0]}, "all zeros"),
    ({"vector": A, "vector_id": ["x", "y"]}, "`vector_id` has 2 items for 1"),
    ({"vector": [A, B], "vector_id": ["x", "x"]}, "`vector_id` has `x` twice"),
    ({"vector": [A, B], "metadata": {"lang": "en"}}, "`metadata` is one, and there are 2"),
    ({"vector": A, "metadata": ["x"]}, "`metadata"),
    ({}, "`vector` is missing"),
]


async def test_an_insert_that_is_wrong_says_what_is(store: Client) -> None:
    await fill(store)
    for given, message in WRONG:
        with pytest.raises(InvalidInput, match=message):
            await store.insert(**given)
    assert sorted(await store.ids()) == ["a", "b", "c"]


async def test_a_search_that_is_wrong_says_what_is(store: Client) -> None:
    await fill(store)
    with pytest.raises(InvalidInput, match="`query` has 2 numbers"):
        await store.search(query=[1.0, 2.0])
    with pytest.raises(InvalidInput, match="`metric_type`: the collection is for `cosine`"):
        await store.search(query=A, metric_type="l2")
    with pytest.raises(InvalidInput, match="unknown operator `like`"):
        await store.search(query=A, filter={"lang": {"like": "e%"}})
    with pytest.raises(InvalidInput, match="neither a map nor a list"):
        await store.search(query=A, filter="lang == 'en'")


@pytest.mark.parametrize(
    ("metric", "distances", "scores"),
    [
        ("l2", {"a": 0.0, "b": math.sqrt(0.4), "c": math.sqrt(5)}, None),
        ("ip", {"a": -1.0, "b": -0.8, "c": 0.0}, {"a": 1.0, "b": 0.8, "c": 0.0}),
    ],
)
async def test_distances_are_those_of_the_metric(
    keys: str, tmp_path: Path, metric: str, distances: dict[str, float], scores: dict[str, float] | None
) -> None:
    async with store_of(f"{keys}\nmetric: {metric}", tmp_path) as store:
        await fill(store)
        found = await store.search(query=A)
        assert {hit["id"]: hit["distance"] for hit in found} == pytest.approx(distances, abs=1e-6)
        expected = scores or {name: 1 / (1 + distance) for name, distance in distances.items()}
        assert {hit["id"]: hit["score"] for hit in found} == pytest.approx(expected, abs=1e-6)


async def test_what_was_stored_is_there_the_next_time(keys: str, tmp_path: Path) -> None:
    async with store_of(keys, tmp_path) as store:
        await fill(store)
    assert (tmp_path / "kept").is_dir() == ("storage_dir" in keys)
    async with store_of(keys, tmp_path) as store:
        assert await store.ids() == ["a", "b", "c"]
        with pytest.raises(InvalidInput, match="there already"):
            await store.insert(vector=A, vector_id="a")
    async with store_of(f"{keys}\nmetric: l2", tmp_path) as store:
        with pytest.raises(InvalidInput, match="has `metric: cosine`, and the file says `l2`"):
            await store.search(query=A)


async def test_a_dimension_in_the_file_holds_from_the_first_vector_on(keys: str, tmp_path: Path) -> None:
    async with store_of(f"{keys}\ndimension: 4", tmp_path) as store:
        with pytest.raises(InvalidInput, match="`vector` has 3 numbers, and `dimension` is 4"):
            await store.insert(vector=A)


async def test_a_workflow_embeds_and_searches(tmp_path: Path) -> None:
    # Block 17 of the seed: the job names the action, which takes everything from its input.
    file = """
    component: {id: vector-store, type: vector-store, collection: things}
    workflows:
      - {id: fill, jobs: [{component: vector-store, action: insert, input: "${input}"}]}
      - id: query
        jobs:
          - id: search
            component: vector-store
            action: search
            input: {vector: "${input.vector}", top_k: 1}
            output: "${result[0].id}"
    """
    async with app_of(file, tmp_path) as app:
        await output_of(app, {"vector": [A, B], "vector_id": ["a", "b"]}, "fill")
        assert await output_of(app, {"vector": B}, "query") == "b"
