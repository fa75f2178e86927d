"""The loop that batches, against the library's own `generate`: the same tokens, whoever else is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import tiny_models
from tests.engines import Collector, load_options, running, unseen

from model_compose.drivers.contract import LoadOptions
from model_compose.errors import Cancelled, EngineError, InvalidInput, ModelLoadError, OutOfMemory
from model_compose.tasks.text_generation.huggingface.model import Generator, Transformers
from model_compose.tasks.text_generation.huggingface.sampling import Sampler
from model_compose.tasks.text_generation.spec import TextGeneration

PROMPTS = ["w3 w4 w5", "w7", "w90 w3 w17 w30 w41 w52 w63", "w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def options(path: Path, **more: Any) -> LoadOptions:
    return load_options(path, "text-generation", **more)


def decoder(folder: Path, kind: str) -> Path:
    path = folder / kind
    return path if path.exists() else tiny_models.decoder(kind, path)


def request(prompt: str, **more: Any) -> TextGeneration:
    return TextGeneration(prompt=prompt, **{"temperature": 0.0, "max_output_length": 12, **more})


@torch.inference_mode()
def reference(model: Any, prompt: str, **more: Any) -> str:
    """What the library says to a prompt by itself."""
    ids = model.tokenizer(prompt, return_tensors="pt").input_ids.to(model._loaded.device)
    given = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": 2, "min_new_tokens": 1, **more}
    tokens = model._loaded.model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **given)
    new = tokens if model._loaded.config.is_encoder_decoder else tokens[:, ids.shape[1] :]
    return str(model.tokenizer.decode(new[0], skip_special_tokens=True)).strip()


async def together(run: Any, prompts: Sequence[str], **more: Any) -> list[str]:
    outcomes = await asyncio.gather(*(run(request(prompt, **more)) for prompt in prompts))
    return [outcome.result.text.strip() for outcome in outcomes]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "gemma2", "gpt_neox", "opt"])
async def test_prompts_of_different_lengths_together_say_what_each_says_alone(
    folder: Path, kind: str
) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, kind), options={"prompt_batch": 16})) as run:
        assert model._shares
        found = await together(run, PROMPTS)
        assert found == [reference(model, prompt) for prompt in PROMPTS]
        assert len(set(found)) > 1
        assert model.metrics()["batches_total"] < 2 * 12  # and they were computed together


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
async def test_an_architecture_that_cannot_share_is_served_all_the_same_and_says_so(
    folder: Path, kind: str
) -> None:
    model = Generator()
    model_options = options(decoder(folder, kind))
    async with running(model, model_options) as run:
        assert not model._shares
        assert await together(run, PROMPTS) == [reference(model, prompt) for prompt in PROMPTS]


async def test_details_say_how_requests_are_batched(folder: Path) -> None:
    told = {}
    for kind in ("llama", "bloom"):
        model = Generator()
        info = await model.load(options(decoder(folder, kind), batch_size=5), lambda *_: None)
        told[kind] = info.details["batching"]
        await model.close()
    assert told == {"llama": "continuous, 5 sequences", "bloom": "none: its architecture cannot share"}


async def test_one_that_comes_while_others_run_changes_nothing_for_them(folder: Path) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, "llama"), batch_size=3)) as run:
        first = asyncio.create_task(together(run, PROMPTS[:2], max_output_length=60))
        while model.metrics()["batches_total"] < 5:
            await asyncio.sleep(0)
        others = await together(run, PROMPTS[2:])
        assert await first == [reference(model, prompt, max_new_tokens=60) for prompt in PROMPTS[:2]]
        assert others == [reference(model, prompt) for prompt in PROMPTS[2:]]


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_caller_who_leaves_makes_room_at_once(folder: Path, streaming: bool) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, "llama"), batch_size=1)) as run:
        sink = Collector(streaming=streaming)
        long = asyncio.create_task(run(request("w3", max_output_length=250), sink))
        while model.metrics()["batches_total"] < 5:
            await asyncio.sleep(0)
        waits = asyncio.create_task(run(request("w4"), unheard := Collector()))
        unheard.token.cancel()
        with pytest.raises(Cancelled):
            await waits
        sink.token.cancel()
        with pytest.raises(Cancelled):
            await long
        assert (await run(request("w5"))).result.text.strip() == reference(model, "w5")
        assert model.metrics()["requests_running"] == 0


async def test_a_slow_reader_holds_up_nobody_and_gets_all_in_the_end(folder: Path) -> None:
    class Slow(Collector):
        reads = False

        @property
        def ready(self) -> bool:
            return self.reads

    model = Generator()
    async with running(model, options(decoder(folder, "llama"))) as run:
        slow = Slow()
        task = asyncio.create_task(run(request("w3"), slow))
        other = await run(request("w4"))
        assert other.result.text
        outcome = await task
    assert "".join(chunk.text for chunk in slow.chunks) == outcome.result.text != ""


# What `generate` does


async def test_beams_are_those_of_the_library(folder: Path) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, "llama"))) as run:
        outcome = await run(request("w3 w4", num_beams=4, num_return_sequences=2, min_output_length=12))
        sampled = await run(request("w3 w4", num_beams=2, temperature=1.0, seed=1))
        again = await run(request("w3 w4", num_beams=2, temperature=1.0, seed=1))
        beams = {"num_beams": 4, "num_return_sequences": 2, "early_stopping": True}
        wanted = reference(model, "w3 w4", min_new_tokens=12, **beams)
    assert outcome.result[0].text.strip() == wanted
    assert outcome.usage.completion_tokens == 24
    assert sampled.result.text == again.result.text


async def test_beams_and_those_that_share_are_computed_in_turns(folder: Path) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, "llama"))) as run:
        long = request("w3", num_beams=3, max_output_length=200, min_output_length=200)
        beams = asyncio.create_task(run(long))
        shared = await together(run, PROMPTS)
        assert shared == [reference(model, prompt) for prompt in PROMPTS]
        assert not beams.done()
        outcome = await beams
    assert outcome.usage.completion_tokens == 200


async def test_a_caller_of_beams_who_leaves_ends_them(folder: Path) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, "llama"))) as run:
        sink = Collector()
        task = asyncio.create_task(run(request("w3", num_beams=3, max_output_length=250), sink))
        await together(run, ["w4"])
        sink.token.cancel()
        with pytest.raises(Cancelled):
            await task


async def test_a_caller_who_leaves_before_it_is_computed_alone_waits_for_nobody(folder: Path) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, "llama"))) as run:
        first = asyncio.create_task(run(request("w3", num_beams=3, max_output_length=250)))
        await together(run, ["w4"])
        sink = Collector()
        second = asyncio.create_task(run(request("w5", num_beams=2), sink))
        while model.metrics()["requests_waiting"] == 0:
            await asyncio.sleep(0)
        sink.token.cancel()
        with pytest.raises(Cancelled):
            await second
        assert not first.done()
        assert model.metrics()["requests_running"] == 1
        usage = (await first).usage
        # What is alone is counted like what shares.
        assert model.metrics()["generation_tokens_total"] == usage.completion_tokens + 12
        assert model.metrics()["requests_running"] == 0


class Broken:
    """Adapters whose blends cannot be made."""

    def blend(self, weights: Any) -> tuple[float, ...]:
        return (1.0,)

    def use(self, rows: Any) -> None:
        raise OSError("the disk is full")


class Full(Transformers):
    """A library whose models have such adapters."""

    def attach(self, loaded: Any, options: LoadOptions) -> Broken:
        return Broken()

    def shares(self, loaded: Any, options: LoadOptions) -> bool:
        return False


async def test_a_blend_that_cannot_be_made_ends_the_request_that_wants_it(folder: Path) -> None:
    async with running(Generator(Full()), options(decoder(folder, "llama"))) as run:
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is full"):
                await run(request("w3"))


async def test_an_output_of_what_is_no_number_ends_and_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adjust = Sampler.adjust

    def spoil(row: Sampler, logits: torch.Tensor) -> None:
        adjust(row, logits)
        if row.request.presence_penalty == 2.0:
            logits[7] = torch.nan

    monkeypatch.setattr(Sampler, "adjust", spoil)
    async with running(Generator(), options(decoder(folder, "llama"))) as run:
        alone = (await run(request("w3 w4"))).result.text
        ends: tuple[Any, ...] = await asyncio.gather(
            run(request("w3 w4")),
            run(request("w5", presence_penalty=2.0, logprobs=1)),
            run(request("w5", presence_penalty=2.0, temperature=1.0)),
            return_exceptions=True,
        )
        assert ends[0].result.text == alone
        for each in ends[1:]:
            assert isinstance(each, EngineError)
            assert "not finite" in str(each)


async def test_what_it_leaves_in_the_cache_spoils_nobody_who_comes_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, adjust = Generator(), Sampler.adjust

    def spoil(row: Sampler, logits: torch.Tensor) -> None:
        adjust(row, logits)
        if row.request.presence_penalty == 2.0:
            logits[7] = torch.nan
            cache = model._loop._cache
            for buffer in (*cache._keys, *cache._values):
                buffer[1] = torch.nan  # its slot, behind the one that runs

    monkeypatch.setattr(Sampler, "adjust", spoil)
    async with running(model, options(decoder(folder, "llama"))) as run:
        alone = (await run(request("w3 w4"))).result.text
        begun = Collector()
        long = asyncio.create_task(
            run(request("w9 w8 w7", min_output_length=200, max_output_length=200), begun)
        )
        while len(begun.chunks) < 20:
            await asyncio.sleep(0)
        with pytest.raises(EngineError, match="not finite"):
            await run(request("w5", presence_penalty=2.0))
        assert (await run(request("w3 w4"))).result.text == alone
        assert not long.done()
        await long


@pytest.mark.parametrize("alone", [False, True], ids=["together", "one by one"])
async def test_weights_that_are_no_numbers_are_refused_when_they_are_loaded(
    tmp_path: Path, alone: bool
) -> None:
    path = tiny_models.decoder("llama", tmp_path / "llama")
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], torch.inf)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(EngineError, match="not finite"):
        await Generator(OneByOne() if alone else None).load(options(path), unseen)


class OneByOne(Transformers):
    """A library whose models share nothing."""

    def shares(self, loaded: Any, options: LoadOptions) -> bool:
        return False


async def test_a_search_of_what_is_no_number_ends(tmp_path: Path) -> None:
    path = tiny_models.seq2seq(tmp_path / "t5")
    weights = load_file(path / "model.safetensors")
    for name in weights:
        if name.endswith("final_layer_norm.weight"):
            weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    async with running(Generator(), options(path)) as run:
        for more in ({}, {"num_beams": 2}, {"temperature": 1.0}):
            with pytest.raises(EngineError, match="not finite"):
                await run(request("w3", **more))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"num_beams": 2, "logprobs": 1}, "logprobs"),
    ],
)
async def test_what_beams_cannot_do_is_refused_by_name(
    folder: Path, more: dict[str, Any], field: str
) -> None:
    async with running(Generator(), options(decoder(folder, "llama"))) as run:
        with pytest.raises(InvalidInput) as caught:
            await run(request("w3", **more))
    assert caught.value.field == field


async def test_an_encoder_decoder_answers(folder: Path) -> None:
    path = folder / "t5"
    tiny_models.seq2seq(path)
    model, sink = Generator(), Collector()
    async with running(model, options(path)) as run:
        outcome = await run(request("w3 w4 w5"), sink)
        wanted = reference(model, "w3 w4 w5")
        several = await run(request("w3", temperature=1.0, seed=3, num_return_sequences=3))
    assert outcome.result.text.strip() == wanted != ""
    assert "".join(chunk.text for chunk in sink.chunks) == outcome.result.text
    assert outcome.usage.prompt_tokens == 3
    assert len(several.result) == 3


async def test_the_architecture_of_the_file_must_be_that_of_the_weights(folder: Path) -> None:
    model = Generator()
    with pytest.raises(ModelLoadError, match="`architecture` is `seq2seq`, and `llama` is causal"):
        await model.load(options(decoder(folder, "llama"), architecture="seq2seq"), lambda *_: None)


# Memory


async def test_a_batch_without_memory_is_tried_again_with_half_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Generator()
    async with running(model, options(decoder(folder, "llama"))) as run:
        forward = model._loop._forward
        rows: list[int] = []

        def scarce(ids: Any, *others: Any) -> torch.Tensor:
            rows.append(len(ids))
            if len(ids) > 2:
                torch.empty(1 << 60, dtype=torch.uint8)
            return forward(ids, *others)

        monkeypatch.setattr(model._loop, "_forward", scarce)
        found = await together(run, PROMPTS)
        assert found == [reference(model, prompt) for prompt in PROMPTS]
        assert max(rows) > 2
        monkeypatch.setattr(model._loop, "_forward", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
        with pytest.raises(OutOfMemory):
            await run(request("w3"))
        monkeypatch.setattr(model._loop, "_forward", forward)
        assert (await run(request("w3 w4 w5"))).result.text.strip() == reference(model, PROMPTS[0])
