"""How near to exact are the vector stores, how fast, and how much memory do they take?

100,000 vectors of MiniLM (see `corpus.py`) are inserted by the component itself, each driver in a process of
its own; then every query is searched alone. What is exact is computed with numpy. PostgreSQL and Chroma's
server run as their tests run them, and their memory is not in what is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from tests.components.vector_store import servers
from tests.components.vector_store.stores import store_of

from bench import corpus
from bench.stats import Report

DRIVERS = ("sqlite", "chroma", "pgvector", "qdrant", "milvus")
TOP = 10
WARM = 5
BATCH = 1000
RECALL = 0.99


async def main(report: Report) -> None:
    await asyncio.to_thread(corpus.vectors)
    for driver in DRIVERS:
        report.title(f"vectors, driver {driver}: {corpus.COUNT:,} of {corpus.DIMENSION} numbers")
        command = (sys.executable, "-m", "bench.vectors", driver)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode != 0:
            report.missed.append(f"vectors {driver}: it failed")
            continue
        found = json.loads(output.splitlines()[-1])
        report.single(f"{driver}: recall@{TOP}", found["recall"], "", at_least=RECALL)
        report.single(f"{driver}: search", found["ms"], "ms")
        report.single(f"{driver}: insert", [found["rate"]], "/s")
        report.single(f"{driver}: memory it adds to the process", [found["mib"]], "MiB")


def exact(stored: Any, queries: Any) -> list[set[str]]:
    """The ids of the nearest vectors, which all have length 1."""
    import numpy as np

    order = np.argpartition(-(queries @ stored.T), TOP, axis=1)[:, :TOP]
    return [{str(i) for i in row} for row in order]


@contextlib.contextmanager
def keys_of(driver: str, folder: Path) -> Iterator[str]:
    """The keys of a component."""
    common = f"driver: {driver}\ncollection: things\ntimeout: 600"
    if driver == "pgvector":
        with servers.postgres() as host:
            yield f"{common}\nhost: {host}\nuser: tester\ndatabase: postgres"
    else:
        yield f"{common}\nstorage_dir: {folder / 'kept'}"


async def measure(driver: str) -> dict[str, Any]:
    """Fill a store and search it."""
    stored, queries = corpus.vectors()
    wanted = exact(stored, queries)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as name, keys_of(driver, Path(name)) as keys:
        async with store_of(keys, Path(name)) as store:
            before = process.memory_info().rss
            began = time.perf_counter()
            for start in range(0, len(stored), BATCH):
                some: Sequence[Any] = stored[start : start + BATCH].tolist()
                await store.insert(vector=some, vector_id=list(range(start, start + len(some))))
            rate = len(stored) / (time.perf_counter() - began)
            times, recalls = [], []
            for i, query in enumerate(queries.tolist()):
                began = time.perf_counter()
                hits = await store.search(query=query, top_k=TOP)
                if i >= WARM:
                    times.append((time.perf_counter() - began) * 1000)
                recalls.append(len({hit["id"] for hit in hits} & wanted[i]) / TOP)
            mib = (process.memory_info().rss - before) / 2**20
    return {"recall": [statistics.fmean(recalls)], "ms": times, "rate": rate, "mib": mib}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1]))))
