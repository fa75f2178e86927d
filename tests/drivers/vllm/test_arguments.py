"""What the engine is told of a component, looked at without the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_compose.drivers.contract import LoadedAdapter, LoadOptions
from model_compose.drivers.vllm.arguments import Installed, arguments, environment
from model_compose.errors import ModelLoadError
from model_compose.sources.spec import LoadedSource

NAMES = (
    "model",
    "runner",
    "dtype",
    "block_size",
    "attention_backend",
    "trust_remote_code",
    "_api_process_count",
)
CPU = Installed("0.32.0+cpu", NAMES, on_cpu=True, gpus=0)
GPUS = Installed("0.32.0", NAMES, on_cpu=False, gpus=4)


def source(path: Path) -> LoadedSource:
    return LoadedSource(path=str(path), format=None, revision=None, origin=path.name, size_bytes=1)


def load(path: Path, task: str = "text-generation", **more: Any) -> LoadOptions:
    return LoadOptions(task=task, source=source(path), threads=3, scratch="", **more)


def test_what_a_plain_file_gives_is_little(tmp_path: Path) -> None:
    given = arguments(load(tmp_path), GPUS)
    assert given == {
        "model": str(tmp_path),
        "runner": "generate",
        "dtype": "auto",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"precision": "float16"}, {"dtype": "float16"}),
        ({"batch_size": 5}, {"max_num_seqs": 5}),
        ({"max_seq_length": 512}, {"max_model_len": 512}),
        ({"options": {"max_model_len": 512}}, {"max_model_len": 512}),
        ({"device_mode": "auto"}, {"tensor_parallel_size": 4}),
        ({"options": {"tensor_parallel_size": 2}}, {"tensor_parallel_size": 2}),
        ({"options": {"enable_prefix_caching": False}}, {"enable_prefix_caching": False}),
        ({"options": {"quantization": "fp8"}}, {"quantization": "fp8"}),
        ({"options": {"block_size": 32}}, {"block_size": 32}),
    ],
)
def test_what_the_file_says_is_an_argument(
    tmp_path: Path, more: dict[str, Any], expected: dict[str, Any]
) -> None:
    given = arguments(load(tmp_path, **more), GPUS)
    assert expected.items() <= given.items()


def test_the_chat_template_is_ours(tmp_path: Path) -> None:
    assert "chat_template" not in arguments(load(tmp_path, options={"chat_template": "x"}), GPUS)


@pytest.mark.parametrize("task", ["text-embedding", "text-classification"])
def test_models_that_read_are_pooled_and_exact_on_a_cpu(tmp_path: Path, task: str) -> None:
    assert {"runner": "pooling", "dtype": "auto"}.items() <= arguments(load(tmp_path, task), GPUS).items()
    given = arguments(load(tmp_path, task), CPU)
    assert given["dtype"] == "float32"
    assert given["kv_cache_memory_bytes"] == 256 << 20


def test_on_a_cpu_the_cache_does_not_take_all_memory(tmp_path: Path) -> None:
    """The engine's own default is 92 % of the machine."""
    assert arguments(load(tmp_path), CPU)["kv_cache_memory_bytes"] == 1 << 30
    given = arguments(load(tmp_path, options={"kv_cache_memory_bytes": 5 << 20}), CPU)
    assert given["kv_cache_memory_bytes"] == 5 << 20


def test_an_argument_that_the_engine_does_not_have_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        arguments(load(tmp_path, options={"blok_size": 32}), CPU)
    assert caught.value.message == "vLLM 0.32.0+cpu has no engine argument `blok_size`"
    assert caught.value.hint == "did you mean `block_size`?"


@pytest.mark.parametrize("name", ["_api_process_count", "swap_space"])
def test_neither_private_nor_former_arguments_are_passed_on(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelLoadError, match=f"no engine argument `{name}`"):
        arguments(load(tmp_path, options={name: 1}), CPU)


def test_no_code_of_others_can_be_asked_for(tmp_path: Path) -> None:
    assert "trust_remote_code" not in arguments(load(tmp_path, options={"trust_remote_code": False}), CPU)


@pytest.mark.parametrize(
    ("device", "installed", "message"),
    [
        ("cuda", CPU, "computes on the CPU only"),
        ("cuda:1", CPU, "computes on the CPU only"),
        ("cpu", GPUS, "does not compute on the CPU"),
        ("cuda", GPUS._replace(gpus=0), "sees no GPU"),
    ],
)
def test_a_device_that_this_build_lacks_is_refused(
    tmp_path: Path, device: str, installed: Installed, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        arguments(load(tmp_path, device=device), installed)


def test_a_file_stands_for_its_folder_if_it_is_alone_there(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    assert arguments(load(file), CPU)["model"] == str(tmp_path)
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(ModelLoadError, match=r"beside `model.safetensors` lies `other.safetensors`"):
        arguments(load(file), CPU)


@pytest.mark.parametrize(
    ("ranks", "options", "room", "loras"),
    [
        ((4,), {}, 8, 1),
        ((16, 16), {}, 32, 2),
        ((16, 16), {"max_lora_rank": 16, "max_loras": 4}, 16, 4),
        ((256, 320), {}, 512, 2),
    ],
)
def test_there_is_room_for_all_adapters_together(
    tmp_path: Path, ranks: tuple[int, ...], options: dict[str, Any], room: int, loras: int
) -> None:
    adapters = tuple(LoadedAdapter(str(i), source(tmp_path)) for i in range(len(ranks)))
    given = arguments(load(tmp_path, adapters=adapters, options=options), GPUS, ranks)
    assert given["enable_lora"] is True
    assert (given["max_lora_rank"], given["max_loras"]) == (room, loras)


def test_on_a_cpu_there_is_room_for_one_that_adds_nothing(tmp_path: Path) -> None:
    adapters = (LoadedAdapter("a", source(tmp_path)),)
    assert arguments(load(tmp_path, adapters=adapters), CPU, (8,))["max_loras"] == 2


def test_an_adapter_that_has_no_room_is_refused(tmp_path: Path) -> None:
    adapters = (LoadedAdapter("a", source(tmp_path)),)
    with pytest.raises(ModelLoadError, match="an adapter has rank 64, and there is room for 16"):
        arguments(load(tmp_path, adapters=adapters, options={"max_lora_rank": 16}), CPU, (64,))


def test_the_engine_neither_fetches_nor_tells_and_binds_no_cores(tmp_path: Path) -> None:
    found = environment(load(tmp_path), {})
    assert found["HF_HUB_OFFLINE"] == found["VLLM_NO_USAGE_STATS"] == found["VLLM_DO_NOT_TRACK"] == "1"
    assert found["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert (found["VLLM_CPU_OMP_THREADS_BIND"], found["OMP_NUM_THREADS"]) == ("nobind", "3")
    assert "CUDA_VISIBLE_DEVICES" not in found


def test_what_the_user_has_set_is_left_alone(tmp_path: Path) -> None:
    theirs = {"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_CPU_OMP_THREADS_BIND": "0-3"}
    assert environment(load(tmp_path), theirs).keys().isdisjoint(theirs)


def test_the_file_says_how_many_threads_compute(tmp_path: Path) -> None:
    assert environment(load(tmp_path), {"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("visible", "device", "chosen"),
    [("", "cuda:1", "1"), ("4,6", "cuda:1", "6"), ("GPU-a,GPU-b", "cuda:0", "GPU-a")],
)
def test_one_of_several_gpus_is_the_only_one_that_is_seen(
    tmp_path: Path, visible: str, device: str, chosen: str
) -> None:
    found = environment(load(tmp_path, device=device), {"CUDA_VISIBLE_DEVICES": visible})
    assert found["CUDA_VISIBLE_DEVICES"] == chosen


def test_a_gpu_that_is_not_visible_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no device `cuda:2`: 2 are visible"):
        environment(load(tmp_path, device="cuda:2"), {"CUDA_VISIBLE_DEVICES": "4,6"})
