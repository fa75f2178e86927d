"""Do the blocks that generate text do what they promise?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests import models, tiny_models
from tests.compose.apps import output_of, run_of
from tests.conformance import repositories
from tests.conformance.blocks import Hub, answered, block, changed, mistakes_of, planned, project_of, running

from model_compose.drivers.contract import LoadedAdapter
from model_compose.errors import DriverMissing, ModelComposeError, ModelUnavailable
from model_compose.frames import render

LLAMA = "meta-llama/Llama-2-7b-hf"
TOKEN = "hf_readerOfPrivateThings"
PROMPT = "Once upon a time"
FRAGMENTS = {
    30: {"ahoy": 0.5},
    31: {"arr": 1.0},
    32: {"arr": 1.0},
    33: {"arr": 0.6, "ahoy": 0.4},
    34: {"ahoy": 1.0},
}


_SAID = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed eiusmod tempor incididunt ut labore et "
    "dolore magna aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea "
    "commodo consequat duis aute irure in reprehenderit voluptate velit esse cillum eu fugiat nulla "
    "pariatur excepteur sint occaecat cupidatat non proident sunt culpa qui officia deserunt mollit anim"
)
#: All words that the toy says, in any order.
LATIN = set(_SAID.split())


def is_latin(text: str) -> bool:
    """Whether the toy has said this, without an adapter and without its prompt."""
    words = text.split()
    return bool(words) and set(words) <= LATIN


# Where weights come from


@pytest.mark.process
@pytest.mark.parametrize("number", [1])
async def test_a_repository_generates_in_a_worker(number: int, hub: Hub, tmp_path: Path) -> None:
    hub.offer(LLAMA)
    async with running(block(number), tmp_path) as app:
        assert is_latin(await output_of(app, PROMPT))
        assert is_latin(await output_of(app, {"prompt": PROMPT}))
        assert app.status()[0].pid is not None


@pytest.mark.process
@pytest.mark.model
async def test_2_unsloth_generates_from_weights_of_4_bits(hub: Hub, tmp_path: Path) -> None:
    hub.offer("unsloth/llama-2-7b-bnb-4bit")
    environment = f"  runtime: {{type: process, python: {models.unsloth_python()}}}\n"
    async with running(block(2) + environment, tmp_path) as app:
        assert set((await output_of(app, "w3 w4 w5")).split()) <= {f"w{i}" for i in range(3, 96)}
        (status,) = app.status()
        assert status.info is not None
        assert status.info.details["engine"].startswith("Unsloth 2026.")


async def test_2_without_unsloth_the_error_names_a_driver_that_can(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DriverMissing, match="needs `unsloth`, which is not installed") as caught:
        async with running(block(2), tmp_path):
            pass
    assert "`driver: huggingface`" in str(caught.value.hint)
    assert hub.paths() == []


async def test_5_comes_from_the_hub_once(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer(LLAMA)
    assert is_latin(await answered(block(5), tmp_path, PROMPT))
    assert any(path.endswith("/model.safetensors") for path in hub.paths())
    before = len(hub.paths())
    assert is_latin(await answered(block(5), tmp_path, PROMPT))
    assert len(hub.paths()) == before


@pytest.mark.parametrize("number", [3, 8])
@pytest.mark.parametrize("saved", ["safetensors", "pytorch"])
async def test_a_folder_generates(number: int, saved: str, in_process: None, tmp_path: Path) -> None:
    files = repositories.files_of(LLAMA)
    files = repositories.as_pytorch(files) if saved == "pytorch" else files
    folder = repositories.written(files, tmp_path / "weights")
    assert is_latin(await answered(block(number, **{"/path/to/model": str(folder)}), tmp_path, PROMPT))


@pytest.mark.process
async def test_4_a_gguf_file_generates(tmp_path: Path) -> None:
    text = block(4, **{"/models/llama-2-7b-chat.Q4_K_M.gguf": str(models.tiny_chat())})
    async with running(text, tmp_path) as app:
        assert is_latin(await output_of(app, PROMPT))
        (model,) = app.models
        assert model.driver.name == "llamacpp"


async def test_6_every_key_of_the_hub_counts(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.add(LLAMA, {**repositories.files_of(LLAMA), **repositories.as_pytorch(repositories.files_of(LLAMA))})
    text = block(6, **{"/custom/cache": str(tmp_path / "custom")})
    (warning,) = project_of(text, tmp_path).warnings
    assert "`HUGGINGFACE_TOKEN` is not set" in warning.message
    assert is_latin(await answered(text, tmp_path, PROMPT))
    asked = "\n".join(hub.paths())
    assert "pytorch_model.bin" in asked
    assert "model.safetensors" not in asked
    assert all(request.authorization is None for request in hub.requests)
    assert list((tmp_path / "custom").rglob("pytorch_model.bin"))
    assert not (tmp_path / "hub").exists()


async def test_7_a_path_is_a_folder_here(hub: Hub, in_process: None, tmp_path: Path) -> None:
    folder = repositories.folder_of(LLAMA)
    assert is_latin(await answered(block(7, **{"/path/to/model": str(folder)}), tmp_path, PROMPT))
    assert hub.paths() == []


@pytest.mark.parametrize("number", [3, 4, 7, 8])
async def test_a_path_that_is_missing_is_told(number: int, in_process: None, tmp_path: Path) -> None:
    with pytest.raises(ModelComposeError, match=r"`/(path/to/model|models/llama-2-7b-chat.Q4_K_M.gguf)`"):
        await answered(block(number), tmp_path, PROMPT)


async def test_10_only_the_token_opens_a_private_repository(
    hub: Hub, in_process: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.offer(LLAMA, private=True, readers=[TOKEN])
    with pytest.raises(ModelUnavailable, match="private, or does not exist"):
        await answered(block(10), tmp_path, PROMPT)
    assert is_latin(await answered(block(10), tmp_path, PROMPT, {"HUGGINGFACE_TOKEN": TOKEN}))
    assert f"Bearer {TOKEN}" in {request.authorization for request in hub.requests}
    assert TOKEN not in caplog.text


async def test_10_a_token_is_in_no_error(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer(LLAMA, private=True, readers=["another"])
    variables = {"HUGGINGFACE_TOKEN": TOKEN}
    with pytest.raises(ModelComposeError) as raised:
        await answered(block(10), tmp_path, PROMPT, variables)
    assert TOKEN not in render(raised.value)
    model, options = planned(block(10), tmp_path, variables)
    assert TOKEN not in f"{model!r} {options!r} {project_of(block(10), tmp_path, variables)!r}"


async def test_11_the_version_is_that_of_weights_and_tokenizer(
    hub: Hub, in_process: None, tmp_path: Path
) -> None:
    hub.add(LLAMA, {"config.json": b"{}", "model.safetensors": b"of no use"})
    commit = hub.add(LLAMA, repositories.files_of(LLAMA), revision="v1.0")
    assert is_latin(await answered(block(11), tmp_path, PROMPT))
    fetched = [path for path in hub.paths() if "/resolve/" in path]
    assert fetched
    assert all(f"/resolve/{commit}/" in path for path in fetched)
    assert any(path.endswith("/tokenizer.json") for path in fetched)
    by_commit = changed(block(11), {"v1.0  #": f"{commit}  #"})
    before = len(hub.paths())
    assert is_latin(await answered(by_commit, tmp_path, PROMPT))
    assert len(hub.paths()) == before


async def test_12_nothing_is_asked_of_the_network(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer("gpt2")
    with pytest.raises(ModelUnavailable, match="`gpt2` is not in the cache, and `local_files_only` is set"):
        await answered(block(12), tmp_path, PROMPT)
    assert hub.paths() == []
    await answered(changed(block(12), {"true": "false"}), tmp_path, "w7 w8")
    before = len(hub.paths())
    assert await answered(block(12), tmp_path, "w7 w8")
    assert len(hub.paths()) == before


async def test_44_the_cache_is_made_and_the_task_is_found(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer("gpt2")
    cache = tmp_path / "data" / "model-cache"
    text = block(44, **{"/data/model-cache": str(cache)})
    async with running(text, tmp_path) as app:
        assert app.models[0].task.name == "text-generation"
        assert await output_of(app, "w7 w8")
    assert list(cache.rglob("model.safetensors"))
    assert not (tmp_path / "hub").exists()


# What is generated


async def test_13_more_tokens_than_the_context_are_no_error(
    hub: Hub, in_process: None, tmp_path: Path
) -> None:
    hub.offer("HuggingFaceTB/SmolLM3-3B")
    async with running(block(13), tmp_path) as app:
        run = await run_of(app, {"prompt": PROMPT})
        assert is_latin(run.output.plain())
        assert run.finish_reason == "stop"
        with pytest.raises(ModelComposeError, match="unknown field `promt`"):
            await output_of(app, {"promt": PROMPT})


@pytest.mark.parametrize("number", [9, 14])
async def test_a_conversation_is_answered(number: int, hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer("meta-llama/Llama-2-7b-chat-hf", "HuggingFaceTB/SmolLM3-3B")
    asked: dict[int, list[tuple[Any, list[dict[str, str]]]]] = {
        9: [
            ("Hello", [{"role": "user", "content": "Hello"}]),
            ({"prompt": "Hello"}, [{"role": "user", "content": "Hello"}]),
            (
                {"messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]},
                [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
            ),
        ],
        14: [
            (
                {"system_prompt": "Be brief", "user_prompt": "Hi"},
                [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
            ),
            # Without a system prompt there is no such message, and the template adds its own.
            ({"user_prompt": "Hi"}, [{"role": "user", "content": "Hi"}]),
        ],
    }
    async with running(block(number), tmp_path) as app:
        for given, messages in asked[number]:
            run = await run_of(app, given)
            assert is_latin(run.output.plain()), given
            assert run.usage is not None
            assert run.usage.prompt_tokens == tokens_of(messages), given


def tokens_of(messages: list[dict[str, str]]) -> int:
    """How many tokens the toy reads for a conversation."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(repositories.folder_of(LLAMA))
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


async def test_24_computes_in_half_precision(hub: Hub, in_process: None, tmp_path: Path) -> None:
    # The toy that speaks Latin has weights beyond float16.
    tiny_models.decoder("llama", tmp_path / "llama")
    hub.add(LLAMA, repositories.files_in(tmp_path / "llama"))
    async with running(block(24), tmp_path) as app:
        assert await output_of(app, "w7 w8")
        info = app.status()[0].info
        assert info is not None
        assert info.details["precision"] == "float16"


async def test_25_the_weights_have_eight_bits(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer(LLAMA)
    async with running(block(25), tmp_path) as app:
        assert is_latin(await output_of(app, PROMPT))
        info = app.status()[0].info
        assert info is not None
        assert "int8" in info.details["quantization"]
    async with running(block(1), tmp_path) as app:
        await output_of(app, PROMPT)
        info = app.status()[0].info
        assert info is not None
        assert "quantization" not in info.details


@pytest.mark.parametrize("half", [1, 2])
async def test_41_each_half_finds_its_task(half: int, hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer("large-model", "small-model")
    halves = block(41).split("component:")
    text = f"component:{halves[half]}"
    model, options = planned(text, tmp_path)
    assert model.task.name == "text-generation"
    assert (options.precision, options.device) == {1: ("float16", "cuda"), 2: ("float32", "cpu")}[half]
    if half == 2:
        async with running(text, tmp_path) as app:
            assert is_latin(await output_of(app, PROMPT))
            info = app.status()[0].info
            assert info is not None
            assert (info.details["precision"], info.details["device"]) == ("float32", "cpu")


def test_41_two_files_in_one_is_a_mistake_in_both_lines(tmp_path: Path) -> None:
    (mistake,) = mistakes_of(block(41), tmp_path)
    assert mistake.message == "the key `component` stands twice in one map"
    shown = render(mistake)
    assert "model-compose.yml:10:1" in shown
    assert "3" in shown.partition("hint")[0], shown


# Adapters


async def test_28_an_adapter_changes_what_is_said(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer(LLAMA, "tloen/alpaca-lora-7b")
    assert set((await answered(block(28), tmp_path, {"prompt": PROMPT})).split()) == {"arr"}


async def test_29_adapters_are_blended(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer(LLAMA, private=True, readers=[TOKEN])
    hub.offer("tloen/alpaca-lora-7b", "plncmm/guanaco-lora-7b")
    variables = {"HUGGINGFACE_TOKEN": TOKEN}
    said = await answered(block(29), tmp_path, {"prompt": PROMPT}, variables)
    assert set(said.split()) <= {"arr", "ahoy"}
    _, options = planned(block(29), tmp_path, variables)
    assert weights(options.adapters) == {"alpaca": 0.7, "assistant": 0.8}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft
async def test_29_the_blend_is_the_exact_sum(hub: Hub, in_process: None, tmp_path: Path) -> None:
    """As peft adds them up where nothing is lost, whatever their ranks."""
    base = tiny_models.decoder("llama", tmp_path / "base")
    hub.add(LLAMA, repositories.files_in(base), private=True, readers=[TOKEN])
    for name, rank in (("tloen/alpaca-lora-7b", 2), ("plncmm/guanaco-lora-7b", 5)):
        repositories.adapter(base, tmp_path / str(rank), rank=rank)
        hub.add(name, repositories.files_in(tmp_path / str(rank)))
    greedy = f"{block(29)}  params:\n    temperature: 0\n    max_output_length: 24\n"
    variables = {"HUGGINGFACE_TOKEN": TOKEN}
    said = await answered(greedy, tmp_path, {"prompt": "w7 w8 w9"}, variables)
    blend = {tmp_path / "2": 0.7, tmp_path / "5": 0.8}
    assert said.split() == repositories.said_by_peft(base, blend, "w7 w8 w9", 24)
    assert said.split() != repositories.said_by_peft(base, {}, "w7 w8 w9", 24)


def weights(adapters: tuple[LoadedAdapter, ...]) -> Mapping[str, float]:
    return {adapter.name: adapter.weight for adapter in adapters}


def pasted(number: int, **replaced: str) -> str:
    """A fragment in a component."""
    indented = block(number, **replaced).strip().replace("\n", "\n  ")
    return f"component:\n  type: model\n  task: text-generation\n  model: {LLAMA}\n  {indented}\n"


@pytest.mark.parametrize("number", FRAGMENTS)
async def test_a_fragment_works_in_a_component(
    number: int, hub: Hub, in_process: None, tmp_path: Path
) -> None:
    hub.offer(LLAMA, "user/style-lora", "medalpaca/medalpaca-lora-7b", "user/formal-writing-lora")
    hub.offer("user/technical-lora", "beomi/llama-2-ko-7b-lora")
    replaced = {"/path/to/lora/adapter": str(models.tiny_peft("arr"))} if number == 31 else {}
    text = pasted(number, **replaced)
    said = set((await answered(text, tmp_path, PROMPT)).split())
    assert said <= {*LATIN, *FRAGMENTS[number]}
    if number != 30:  # half of it is not enough to be heard
        assert said & set(FRAGMENTS[number])
    _, options = planned(text, tmp_path)
    assert list(weights(options.adapters).values()) == list(FRAGMENTS[number].values())


@pytest.mark.parametrize("number", FRAGMENTS)
def test_a_bare_fragment_says_where_it_belongs(number: int, tmp_path: Path) -> None:
    (mistake,) = mistakes_of(block(number), tmp_path)
    assert mistake.message == "`peft_adapters` belongs in a component"
    assert mistake.hint
