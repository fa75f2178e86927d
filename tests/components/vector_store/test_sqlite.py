"""What does the default store do beside what every store does?"""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import pytest
from tests.components.vector_store.stores import store_of

from model_compose.errors import InvalidInput, ServiceError

KEYS = "storage_dir: kept\ncollection: things"


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
async def test_what_it_finds_is_exact(tmp_path: Path, metric: str) -> None:
    chance = random.Random(1)
    vectors = [[chance.gauss(0, 1) for _ in range(24)] for _ in range(3000)]
    query = [chance.gauss(0, 1) for _ in range(24)]

    def distance(vector: list[float]) -> float:
        product = sum(map(lambda a, b: a * b, vector, query))
        if metric == "ip":
            return -product
        return math.dist(vector, query) if metric == "l2" else -product / math.hypot(*vector)

    nearest = sorted(range(3000), key=lambda i: distance(vectors[i]))
    even = [i for i in nearest if i % 2 == 0]
    async with store_of(f"{KEYS}\nmetric: {metric}", tmp_path) as store:
        await store.insert(
            vector=vectors, vector_id=list(range(3000)), metadata=[{"odd": i % 2} for i in range(3000)]
        )
        assert await store.ids(query=query, top_k=20) == [str(i) for i in nearest[:20]]
        assert await store.ids(query=query, top_k=20, filter={"odd": 0}) == [str(i) for i in even[:20]]
        await store.delete(vector_id=nearest[:10])
        assert await store.ids(query=query, top_k=10) == [str(i) for i in nearest[10:20]]


async def test_a_cancelled_insert_leaves_nothing(tmp_path: Path) -> None:
    async with store_of(KEYS, tmp_path) as store:
        await store.insert(vector=[1.0, 0.0], vector_id="first")
        many = asyncio.ensure_future(store.insert(vector=[[1.0, float(i)] for i in range(20_000)]))
        while not (tmp_path / "kept" / "vectors.db-wal").exists():
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        assert await store.ids(query=[1.0, 0.0], top_k=5) == ["first"]
        await store.insert(vector=[1.0, 1.0], vector_id="second")


async def test_searches_and_inserts_go_on_together(tmp_path: Path) -> None:
    async with store_of(KEYS, tmp_path) as store:
        await store.insert(vector=[1.0, 0.0])

        async def write(turn: int) -> None:
            await store.insert(vector=[[1.0, float(i)] for i in range(50)])

        async def read(turn: int) -> None:
            found = await store.ids(query=[1.0, 0.0], top_k=1000)
            assert len(found) % 50 == 1  # an insert is seen as a whole

        await asyncio.gather(*(work(turn) for turn in range(10) for work in (write, read)))
        assert len(await store.ids(query=[1.0, 0.0], top_k=1000)) == 501


async def test_two_components_may_share_a_folder(tmp_path: Path) -> None:
    async with store_of(KEYS, tmp_path) as one, store_of(KEYS, tmp_path) as other:
        inserts = [store.insert(vector=[[1.0, 0.0]] * 20) for store in (one, other) for _ in range(5)]
        await asyncio.gather(*inserts)
        assert len(await other.ids(query=[1.0, 0.0], top_k=1000)) == 200


async def test_a_file_that_is_no_store_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "vectors.db").write_text("not a database, but long enough to look like one\n" * 100)
    async with store_of(KEYS, tmp_path) as store:
        with pytest.raises(ServiceError, match=r"cannot be used: .*not a database") as caught:
            await store.insert(vector=[1.0, 0.0])
    assert "another `storage_dir`" in (caught.value.hint or "")


async def test_metadata_may_be_of_any_depth_and_only_its_plain_fields_are_compared(tmp_path: Path) -> None:
    metadata = {"tags": ["a", "b"], "at": {"page": 3}, "big": 2**70, "none": None}
    async with store_of(KEYS, tmp_path) as store:
        await store.insert(vector=[1.0, 0.0], vector_id="x", metadata=metadata)
        [hit] = await store.search(query=[1.0, 0.0])
        assert hit["metadata"] == {"tags": ["a", "b"], "at": {"page": 3}, "big": 2**70}
        assert await store.ids(query=[1.0, 0.0], filter={"tags": {"exists": True}}) == ["x"]
        assert await store.ids(query=[1.0, 0.0], filter={"big": 2**70}) == ["x"]
        assert await store.ids(query=[1.0, 0.0], filter={"none": {"exists": False}}) == ["x"]


async def test_a_vector_longer_than_the_store_takes_is_refused(tmp_path: Path) -> None:
    async with store_of(KEYS, tmp_path) as store:
        with pytest.raises(InvalidInput, match="8192 are the most"):
            await store.insert(vector=[1.0] * 9000)
