"""What is left of the default store when the process is killed while it writes?"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.components.vector_store.stores import store_of

_DIMENSION = 32
_ROWS = 50

WRITER = f"""
import asyncio, itertools, sys
from pathlib import Path
from tests.components.vector_store.stores import store_of

async def main():
    async with store_of("storage_dir: kept\\ncollection: things", Path(sys.argv[1])) as store:
        for turn in itertools.count():
            names = [f"{{turn}}-{{i}}" for i in range({_ROWS})]
            made = await store.insert(
                vector=[[1.0, turn + 1.0, i + 1.0] + [0.5] * {_DIMENSION - 3} for i in range({_ROWS})],
                vector_id=names, metadata=[{{"turn": turn}}] * {_ROWS}, document=names,
            )
            print(made["ids"][0], flush=True)

asyncio.run(main())
"""


def _killed(folder: Path, acknowledged: int) -> int:
    """Kill a writer that has acknowledged so many inserts; -> how many more it has until it dies."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        for _ in range(acknowledged):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        return len(process.stdout.read().splitlines())


@pytest.mark.process
@pytest.mark.parametrize("acknowledged", [1, 5, 12])
async def test_a_killed_insert_loses_nothing_that_was_acknowledged_and_leaves_nothing_in_halves(
    tmp_path: Path, acknowledged: int
) -> None:
    more = _killed(tmp_path, acknowledged)
    known = acknowledged + more
    async with store_of("storage_dir: kept\ncollection: things", tmp_path) as store:
        query = [1.0] * _DIMENSION
        for turn in range(known + 1):
            found = await store.search(query=query, top_k=1000, filter={"turn": turn}, include_vectors=True)
            # What was written when it died is there as a whole, or not at all.
            assert len(found) == _ROWS or (turn == known and not found)
            for hit in found:
                assert hit["document"] == hit["id"]
                assert hit["vector"][1:3] == [turn + 1.0, int(hit["id"].partition("-")[2]) + 1.0]
        assert len(await store.search(query=query, top_k=4096)) in (known * _ROWS, (known + 1) * _ROWS)
        await store.insert(vector=query, vector_id="after")
        assert (await store.search(query=query, top_k=1))[0]["id"] == "after"
