"""Services whose models are on a real GPU: who may be there, and what is left when it is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests import tiny_models
from tests.api.serving import serving

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.process,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
    pytest.mark.timeout(300),
]

WRITER = """
  - id: {name}
    type: model
    task: text-generation
    driver: huggingface
    device: {device}
    model: {folder}
    options: {{cache_mib: {cache_mib}}}
"""

OWN = '''
import msgspec
import torch
from model_compose.tasks.text_embedding.spec import Embedding

class Own:
    """Looks up a row for each text; one that is not there is an error that CUDA never recovers from."""

    class Options(msgspec.Struct):
        share: float = 0.0

    def load(self, options):
        total = torch.cuda.mem_get_info(0)[1]
        size = int(total * options.options.share)
        self.held = torch.empty(size, dtype=torch.uint8, device="cuda")
        self.rows = torch.arange(12.0, device="cuda").reshape(4, 3)

    def forward(self, batch):
        found = self.rows[torch.tensor([int(request.text) for request in batch], device="cuda")]
        return [Embedding(row, False) for row in found.tolist()]
'''


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.decoder("llama", tmp_path_factory.mktemp("models") / "llama")


def file(*components: str) -> str:
    return "controller: {port: 0}\ncomponents:\n" + "".join(components)


async def answer(service: Any, name: str) -> dict[str, Any]:
    given = {"prompt": "w3 w4", "temperature": 0, "max_output_length": 4, "min_output_length": 4}
    response = await service.run(given, workflow_id=name)
    found: dict[str, Any] = response.json()
    assert found["status"] == "completed"
    return found


async def states(service: Any) -> dict[str, Any]:
    response = await service.client.get("/api/components")
    return {each["name"]: each for each in response.json()}


OWN_FILE = """
  - id: {name}
    type: model
    task: text-embedding
    driver: custom
    device: cuda
    implementation: ./own.py:Own
    preload: false
    options: {{share: {share}}}
"""


async def looked_up(service: Any, name: str, row: int = 1) -> Any:
    return await service.run({"text": str(row)}, workflow_id=name)


@pytest.mark.parametrize("declared", [True, False], ids=["known before", "found out"])
async def test_models_that_do_not_fit_together_take_turns(tmp_path: Path, declared: bool) -> None:
    (tmp_path / "own.py").write_text(OWN)
    total = torch.cuda.mem_get_info(0)[1]
    shares = {"one": 0.6, "two": 0.6, "small": 0.1}
    text = file(
        *(
            OWN_FILE.format(name=name, share=share)
            + (f"    memory: {int(total * share) >> 20}MiB\n" if declared else "")
            for name, share in shares.items()
        )
    )
    async with serving(text, tmp_path) as service:
        for name in ("one", "small", "two", "one", "small"):
            found = await looked_up(service, name)
            assert found.json()["status"] == "completed", found.text
            there = await states(service)
            assert there[name]["state"] == "ready"
            assert there[name]["memory"]["cuda:0"] >= int(total * shares[name])
            assert sum(there[each]["state"] == "ready" for each in ("one", "two")) == 1
        assert there["small"]["state"] == "ready"


@pytest.mark.parametrize("device", ["cuda", "auto"])
async def test_models_that_fit_stay_and_say_what_they_take(toy: Path, tmp_path: Path, device: str) -> None:
    names = ("one", "two")
    text = file(*(WRITER.format(name=name, device=device, folder=toy, cache_mib=64) for name in names))
    async with serving(text, tmp_path) as service:
        for name in names:
            assert await answer(service, name)
        found = await states(service)
        for name in names:
            assert found[name]["state"] == "ready"
            assert 0 < found[name]["memory"]["cuda:0"] < 1 << 30


async def test_a_gpu_that_is_lost_to_a_worker_comes_back_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    async with serving(file(OWN_FILE.format(name="own", share=0)), tmp_path) as service:
        good = await looked_up(service, "__workflow__")
        assert good.json()["status"] == "completed"
        before = (await states(service))["own"]["pid"]
        bad = await looked_up(service, "__workflow__", 1_000_000)
        assert bad.json()["status"] == "failed"
        assert "CUDA error" in bad.json()["error"]
        again = await looked_up(service, "__workflow__")
        assert again.json()["output"] == good.json()["output"]
        assert (await states(service))["own"]["pid"] != before
