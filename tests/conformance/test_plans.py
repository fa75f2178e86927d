"""What of the blocks that cannot run everywhere, and of all that are checked before they run?"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compose.apps import output_of
from tests.conformance.blocks import Hub, block, mistakes_of, planned, project_of, running
from tests.conformance.cases import CASES, PLAN

from model_compose.drivers.contract import Quantization
from model_compose.errors import ModelUnavailable

LLAMA_70B = "meta-llama/Llama-2-70b-hf"

#: What `check` says of blocks that are wrong as they stand.
MISTAKES = {
    17: ["there is no component `embedder`", "there is no component `vector-store`"],
    **{key: ["`peft_adapters` belongs in a component"] for key in range(30, 35)},
    41: ["the key `component` stands twice in one map"],
}


def test_every_block_of_the_documentation_is_here() -> None:
    assert list(CASES) == list(range(1, 46))


@pytest.mark.parametrize("number", CASES)
def test_a_block_is_right_or_its_mistakes_are_told(number: int, hub: Hub, tmp_path: Path) -> None:
    mistakes = mistakes_of(block(number), tmp_path)
    assert [mistake.message for mistake in mistakes] == MISTAKES.get(number, [])
    assert all(mistake.hint for mistake in mistakes)
    assert hub.paths() == []  # a check asks nobody


@pytest.mark.parametrize("number", [6, 10, 29])
def test_a_token_that_is_not_set_is_a_warning(number: int, tmp_path: Path) -> None:
    (warning,) = project_of(block(number), tmp_path).warnings
    assert "`HUGGINGFACE_TOKEN` is not set" in warning.message


def test_22_one_gpu(tmp_path: Path) -> None:
    _, options = planned(block(22), tmp_path)
    assert (options.device, options.device_mode) == ("cuda", "single")


async def test_22_without_a_gpu_it_is_told_what_there_is(
    hub: Hub, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    hub.offer("gpt2")
    async with running(block(22), tmp_path) as app:
        with pytest.raises(ModelUnavailable, match="there is no device `cuda` here"):
            await output_of(app, "w3")
        error = app.component("__component__").error()
        assert error is not None
        assert error.hint == "there are: `cpu`"


@pytest.mark.parametrize("number", [23, 45])
def test_many_gpus(number: int, tmp_path: Path) -> None:
    model, options = planned(block(number), tmp_path)
    assert (options.device, options.device_mode) == ("cuda", "auto")
    assert (model.driver.name, options.source and options.source.origin) == ("huggingface", LLAMA_70B)


def test_27_little_memory(tmp_path: Path) -> None:
    _, options = planned(block(27), tmp_path)
    assert (options.low_cpu_mem_usage, options.device) == (True, "cuda")


def test_42_eight_bits(hub: Hub, tmp_path: Path) -> None:
    hub.offer("meta-llama/Llama-2-13b-hf")
    model, options = planned(block(42), tmp_path)
    assert model.task.name == "text-generation"
    assert options.quantization == Quantization(type="int8")
    assert options.device == "cuda"


def test_what_is_only_planned_says_so() -> None:
    assert {number for number, case in CASES.items() if case.how == PLAN} == {22, 23, 27, 42, 45}
