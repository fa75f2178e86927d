"""image-to-text by transformers, with tiny random models of each architecture that say different things."""

from __future__ import annotations

import asyncio
import base64
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import tiny_models, tiny_vision
from tests.api.serving import serving
from tests.tasks.batches import load_options, started
from tests.tiny_vision import KINDS, VOCABULARY, image
from transformers import PreTrainedTokenizerBase

from model_compose.drivers.contract import Outcome, Quantization
from model_compose.errors import EngineError, InvalidInput, ModelLoadError, OutOfMemory, RequestTooLong
from model_compose.tasks.image_to_text import huggingface
from model_compose.tasks.image_to_text.huggingface import Captioner
from model_compose.tasks.image_to_text.spec import ImageToText
from model_compose.tasks.image_to_text.voice import Tidy
from model_compose.tasks.images import decode, rgb
from model_compose.types import Blob, Usage

IMAGES = [image(seed) for seed in range(4)]
PROMPTS = ("a photo of", "what is the man with the red hat on the left", "who")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny_vision.captioner(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {kind: started(Captioner(), options(folder)) for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def options(folder: Path, **more: Any) -> Any:
    return load_options(folder, "image-to-text", **more)


def asked(number: int = 0, **more: Any) -> ImageToText:
    """A request that is greedy, and for a few tokens, unless it says otherwise."""
    return ImageToText(image=IMAGES[number], **{"max_output_length": 8, "do_sample": "seed" in more, **more})


class Recorder:
    """A `Step` that keeps what comes; the caller of a row may go away behind so many pieces."""

    def __init__(self, leaves: dict[int, int] | None = None) -> None:
        self.threads = 1
        self.pieces: dict[int, list[str]] = {}
        self._leaves = leaves or {}

    def emit(self, i: int, chunk: Any) -> None:
        self.pieces.setdefault(i, []).append(chunk.text)

    def progress(self, i: int, done: int, total: int) -> None:
        pass

    def cancelled(self, i: int) -> bool:
        return i in self._leaves and len(self.pieces.get(i, ())) >= self._leaves[i]


def told(model: Any, requests: Sequence[ImageToText], step: Recorder | None = None) -> list[Outcome]:
    """What the requests give in one batch."""
    rows = [model.prepare(request) for request in requests]
    raws = iter(model.forward([item for items in rows for item in items], step or Recorder()))
    return [
        model.finish(request, [next(raws) for _ in items])
        for request, items in zip(requests, rows, strict=True)
    ]


def texts(model: Any, requests: Sequence[ImageToText]) -> list[str]:
    return [outcome.result.text for outcome in told(model, requests)]


@pytest.fixture(scope="module")
def library(folders: dict[str, Path]) -> Callable[..., list[str]]:
    """What the library itself says of an image: its model, its processors and its `generate`."""
    import transformers

    auto: Any = transformers
    parts = {
        kind: (
            auto.AutoModelForImageTextToText.from_pretrained(folder).eval(),
            auto.AutoImageProcessor.from_pretrained(folder, backend="pil"),
            auto.AutoTokenizer.from_pretrained(folder),
        )
        for kind, folder in folders.items()
    }

    def say(kind: str, blob: Blob, prompt: str | None = None, **more: Any) -> list[str]:
        model, processor, tokenizer = parts[kind]
        pixels = processor(images=rgb(decode(blob)), return_tensors="pt")
        more = {"max_new_tokens": 8, "min_new_tokens": 1, "do_sample": False, **more}
        begin = 1
        if prompt is not None:
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            if kind == "git":
                ids = ids[:, :-1]
            more["input_ids"] = ids
            begin = ids.shape[1] - (kind == "blip")
        found = model.generate(pixel_values=pixels["pixel_values"], **more)
        return [tokenizer.decode(row[begin:], skip_special_tokens=True).strip() for row in found]

    return say


# What is said


def test_it_says_what_the_library_says(kind: str, models: Any, library: Any) -> None:
    found = texts(models[kind], [asked(n) for n in range(4)])
    assert found == [library(kind, each)[0] for each in IMAGES]
    assert len(set(found)) > 1


def test_keys_and_values_do_not_change_what_is_said(kind: str, models: Any, library: Any) -> None:
    found = texts(models[kind], [asked(n) for n in range(4)])
    assert found == [library(kind, each, use_cache=False)[0] for each in IMAGES]


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_prompts_of_different_lengths_go_together(kind: str, models: Any, library: Any) -> None:
    requests = [asked(n, prompt=prompt) for n, prompt in enumerate(PROMPTS)]
    found = texts(models[kind], [*requests, asked(3)])
    expected = [library(kind, each, prompt)[0] for each, prompt in zip(IMAGES, PROMPTS, strict=False)]
    # The library decodes what is new without what it continues.
    expected = [text.removeprefix("##") for text in expected]
    assert found == [*expected, library(kind, IMAGES[3])[0]]
    assert not any(text.startswith(prompt) for text, prompt in zip(found, PROMPTS, strict=False))
    usages = [outcome.usage for outcome in told(models[kind], requests)]
    assert [usage.prompt_tokens for usage in usages if usage] == [3, 11, 1]


@pytest.mark.parametrize("prompt", [None, PROMPTS[0]])
def test_beams_find_what_those_of_the_library_find(
    kind: str, prompt: str | None, models: Any, library: Any
) -> None:
    if kind == "vit-gpt2" and prompt:
        return
    more: Any = {"num_beams": 3, "length_penalty": 0.5, "num_return_sequences": 2}
    (outcome,) = told(models[kind], [asked(1, prompt=prompt, **more)])
    found = [each.text for each in outcome.result]
    assert found == library(kind, IMAGES[1], prompt, early_stopping=True, **more)


def test_a_repetition_penalty_is_that_of_the_library(kind: str, models: Any, library: Any) -> None:
    prompt = None if kind == "vit-gpt2" else PROMPTS[0]
    found = texts(models[kind], [asked(2, prompt=prompt, repetition_penalty=1.5)])
    assert found == library(kind, IMAGES[2], prompt, repetition_penalty=1.5)


def test_a_row_does_not_depend_on_those_beside_it(kind: str, models: Any) -> None:
    prompts = (None,) * 4 if kind == "vit-gpt2" else (*PROMPTS, None)
    kinds: list[dict[str, Any]] = [
        {"seed": 1, "temperature": 1.5},
        {"seed": 2, "top_k": 5, "max_output_length": 3},
        {},
        {"seed": 3, "top_p": 0.7, "min_p": 0.05, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    ]
    requests = [
        asked(n, prompt=prompt, **more) for n, (prompt, more) in enumerate(zip(prompts, kinds, strict=True))
    ]
    together = texts(models[kind], requests)
    assert together == [texts(models[kind], [request])[0] for request in requests]
    assert together == list(reversed(texts(models[kind], requests[::-1])))


def test_the_seed_decides(models: Any) -> None:
    seeds = [4, 4, 5]
    first, same, other = texts(models["git"], [asked(seed=seed, temperature=2.0) for seed in seeds])
    assert first == same != other


def test_several_outputs_look_at_the_image_once(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["blip"]
    look, looked = model._how.look, []

    def counted(pixels: Any) -> Any:
        looked.append(len(pixels))
        return look(pixels)

    monkeypatch.setattr(model._how, "look", counted)
    step = Recorder()
    several, one = told(model, [asked(num_return_sequences=3, seed=7), asked(1)], step)
    assert looked == [2]
    assert len({each.text for each in several.result}) == 3
    assert several.usage == Usage(0, sum(each.usage.completion_tokens for each in several.result))
    assert list(step.pieces) == [3]
    assert one.result.text == "".join(step.pieces[3])
    assert [each.text for each in several.result] == [
        texts(model, [asked(seed=seed)])[0] for seed in (7, 8, 9)
    ]


# Where it ends


def test_its_end_is_what_the_weights_say(models: Any, tmp_path: Path) -> None:
    said = [text.split() for text in texts(models["blip"], [asked(n) for n in range(4)])]
    number, end = next(
        (n, i)
        for n, words in enumerate(said)
        for i, word in enumerate(words)
        if 1 < i < 6 and word not in words[:i] and word in VOCABULARY
    )
    sep = VOCABULARY.index(said[number][end])
    model = started(Captioner(), options(tiny_vision.captioner("blip", tmp_path / "a", sep_token_id=sep)))
    free, held, cut = told(
        model, [asked(number), asked(number, min_output_length=8), asked(number, max_output_length=2)]
    )
    assert free.result.text.split() == said[number][:end]
    assert free.finish_reason == "stop"
    assert free.usage is not None
    assert end < free.usage.completion_tokens < 8
    assert (held.finish_reason, held.usage) == ("length", Usage(0, 8))
    assert (cut.finish_reason, cut.usage) == ("length", Usage(0, 2))


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}])
def test_a_stop_sequence_ends_it_and_is_not_shown(more: Any, models: Any) -> None:
    (whole,) = told(models["git"], [asked(**more)])
    words = whole.result.text.split()
    stop = next(word for i, word in enumerate(words) if i > 1 and whole.result.text.count(word) == 1)
    (ended,) = told(models["git"], [asked(stop_sequences=(stop,), **more)])
    assert ended.result.text == whole.result.text[: whole.result.text.index(stop)].rstrip()
    assert ended.finish_reason == "stop"
    assert whole.usage == Usage(0, 8)
    assert ended.usage is not None
    assert ended.usage.completion_tokens < 8


def test_the_context_ends_it(models: Any, folders: dict[str, Path]) -> None:
    short = started(Captioner(), options(folders["git"], max_seq_length=6))
    (outcome,) = told(short, [asked(prompt=PROMPTS[0], max_output_length=100)])
    assert (outcome.finish_reason, outcome.usage) == ("length", Usage(3, 2))
    with pytest.raises(RequestTooLong, match="the prompt has 11 tokens, and the context holds 4"):
        short.prepare(asked(prompt=PROMPTS[1]))
    (cut,) = told(short, [asked(prompt=PROMPTS[1], truncate=True)])
    assert cut.usage == Usage(2, 3)
    (end,) = told(short, [asked(prompt="the left", max_output_length=3)])
    assert cut.result.text == end.result.text
    with pytest.raises(RequestTooLong, match="`max_input_length` is 2"):
        models["git"].prepare(asked(prompt=PROMPTS[0], max_input_length=2))
    (longest,) = told(models["git"], [asked(max_output_length=1000)])
    assert longest.usage == Usage(0, 63)


# While it is said


def test_the_pieces_are_the_text(kind: str, models: Any) -> None:
    step = Recorder()
    found = told(models[kind], [asked(n, max_output_length=20) for n in range(4)], step)
    assert ["".join(step.pieces[n]) for n in range(4)] == [outcome.result.text for outcome in found]
    assert all(len(pieces) > 1 for pieces in step.pieces.values())


def test_no_piece_ends_inside_a_character(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = models["vit-gpt2"], " Ein Bär \U0001f43b im Schnee."
    tokens = iter(model._tokenizer(said).input_ids)
    monkeypatch.setattr(huggingface, "choose", lambda logits, rows: [next(tokens)])
    step = Recorder()
    (outcome,) = told(model, [asked(max_output_length=len(said.encode()))], step)
    assert outcome.result.text == "".join(step.pieces[0]) == said.strip()
    assert "\U0001f43b" in "".join(step.pieces[0]).split()
    assert {"ä", "\U0001f43b"} <= {piece.strip() for piece in step.pieces[0]}


@pytest.mark.parametrize(("said", "shown"), [("the man ' s hat", "the man's hat"), ("the '", "the '")])
def test_words_that_were_split_are_joined_while_they_come(
    said: str, shown: str, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, step = models["git"], Recorder()
    tokens = model._tokenizer(said, add_special_tokens=False).input_ids
    following = iter(tokens)
    monkeypatch.setattr(huggingface, "choose", lambda logits, rows: [next(following)])
    (outcome,) = told(model, [asked(max_output_length=len(tokens))], step)
    assert outcome.result.text == "".join(step.pieces[0]) == shown


def test_who_goes_away_leaves_and_the_others_go_on(models: Any) -> None:
    model, step = models["git"], Recorder(leaves={0: 1, 2: 0})
    expected = texts(model, [asked(1, max_output_length=20)])[0]
    before = model.metrics()["generation_tokens_total"]
    told(model, [asked(n, max_output_length=20) for n in range(3)], step)
    assert "".join(step.pieces[1]) == expected
    assert model.metrics()["generation_tokens_total"] - before <= 20 + 4
    before = model.metrics()["generation_tokens_total"]
    told(model, [asked(), asked(1)], Recorder(leaves={0: 0, 1: 0}))
    assert model.metrics()["generation_tokens_total"] - before == 2


def test_a_search_that_nobody_waits_for_stops(models: Any) -> None:
    from model_compose.errors import Cancelled

    with pytest.raises(Cancelled):
        told(models["blip"], [asked(num_beams=2)], Recorder(leaves={0: 0}))


PIECES = st.lists(
    st.sampled_from(["a", " man", " '", " s", "s", " n't", " no", ".", " .", " ,", "'ve", " 're"])
)


@given(pieces=PIECES, joins=st.booleans())
def test_pieces_of_a_tidy_text_have_no_space_around_them(pieces: list[str], joins: bool) -> None:
    tidy = Tidy(joins=joins)
    shown = "".join([*map(tidy.add, pieces), tidy.rest()])
    assert shown == shown.strip()
    text: Any = "".join(pieces).strip()
    assert shown == (PreTrainedTokenizerBase.clean_up_tokenization(text, text) if joins else text)


@pytest.mark.parametrize(
    ("apart", "together"),
    [
        (" the man ' s hat , and it is n't red .", "the man's hat, and it isn't red."),
        ("we ' re near", "we're near"),
        ("he said ' no", "he said'no"),  # the library does so too
        ("no end '", "no end '"),
    ],
)
def test_spaces_that_words_were_split_at_are_taken_out(apart: str, together: str) -> None:
    tidy = Tidy(joins=True)
    assert "".join([*map(tidy.add, apart), tidy.rest()]) == together


# What is refused


def test_a_model_without_prompts_says_so(models: Any) -> None:
    with pytest.raises(InvalidInput, match="the model takes no prompt") as caught:
        models["vit-gpt2"].prepare(asked(prompt="a photo of"))
    assert caught.value.field == "prompt"
    assert texts(models["vit-gpt2"], [asked(prompt="")]) == texts(models["vit-gpt2"], [asked()])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences"),
        ({"image": Blob("image/png", b"nothing of the kind")}, "image"),
    ],
)
def test_what_cannot_be_done_names_its_field(more: dict[str, Any], field: str, models: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        models["blip"].prepare(ImageToText(**{"image": IMAGES[0], "do_sample": False, **more}))
    assert caught.value.field == field


def test_an_image_may_have_so_many_pixels(folders: dict[str, Path]) -> None:
    small = started(Captioner(), options(folders["blip"], options={"max_image_pixels": 47 * 48}))
    with pytest.raises(InvalidInput, match="48 x 48 pixels"):
        small.prepare(asked())


def test_numbers_that_are_none_fail_their_row_alone(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["blip"]
    look = model._how.look

    def broken(pixels: Any) -> Any:
        seen = look(pixels)
        seen[0] = torch.nan
        return seen

    monkeypatch.setattr(model._how, "look", broken)
    first, second = model.forward([model.prepare(asked(n))[0] for n in range(2)], Recorder())
    assert isinstance(first, EngineError)
    (alone,) = model.forward(model.prepare(asked()), Recorder())
    assert isinstance(alone, EngineError)
    monkeypatch.undo()
    assert [second[0].text] == texts(model, [asked(1)])


def test_memory_that_does_not_suffice_is_said(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(pixels: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")

    monkeypatch.setattr(models["blip"]._how, "look", look)
    with pytest.raises(OutOfMemory):
        told(models["blip"], [asked()])


# What is loaded


def test_the_architecture_is_checked_against_the_weights(kind: str, folders: dict[str, Path]) -> None:
    started(Captioner(), options(folders[kind], architecture=kind))
    other = "git" if kind != "git" else "blip"
    with pytest.raises(ModelLoadError, match=f"`architecture` is `{other}`, and the weights of") as caught:
        started(Captioner(), options(folders[kind], architecture=other))
    assert caught.value.hint == f"set `architecture: {kind}`"


def changed(folder: Path, source: Path, name: str = "config.json", **config: Any) -> Path:
    """A model with other words in one of its files; None takes one out."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    about = {**json.loads((folder / name).read_text()), **config}
    (folder / name).write_text(json.dumps({key: each for key, each in about.items() if each is not None}))
    return folder


def test_weights_for_another_task_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(ModelLoadError, match="of type `bert`, which image-to-text does not know"):
        started(Captioner(), options(tiny_models.classifier("bert", tmp_path / "bert")))
    questions = changed(tmp_path / "vqa", folders["blip"], architectures=["BlipForQuestionAnswering"])
    with pytest.raises(ModelLoadError, match="those of a `BlipForQuestionAnswering`"):
        started(Captioner(), options(questions))
    with pytest.raises(ModelLoadError, match="for videos of 6 images"):
        started(
            Captioner(),
            options(tiny_vision.captioner("git", tmp_path / "video", num_image_with_embedding=6)),
        )
    (folders["blip"] / "preprocessor_config.json").rename(tmp_path / "kept.json")
    try:
        with pytest.raises(ModelLoadError, match="does not tell how images are scaled"):
            started(Captioner(), options(folders["blip"]))
    finally:
        (tmp_path / "kept.json").rename(folders["blip"] / "preprocessor_config.json")


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path, folders: dict[str, Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed(tmp_path / "less", folders["git"])
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "visual_projection" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="has no weights for"):
        started(Captioner(), options(folder))


@pytest.mark.parametrize(
    "more",
    [
        {"precision": "bfloat16"},
        {"quantization": Quantization(type="int8")},
        {"warmup": True},
    ],
)
def test_it_loads_as_the_file_says(more: dict[str, Any], kind: str, folders: dict[str, Path]) -> None:
    stages: list[str] = []
    model = Captioner()
    info = model.load(options(folders[kind], **more), lambda stage, done, total: stages.append(stage))
    assert all(texts(model, [asked(n) for n in range(2)]))
    assert info.details["precision"] == more.get("precision", "float32")
    assert ("quantization" in info.details) == ("quantization" in more)
    assert ("warm-up" in stages) == ("warmup" in more)


@pytest.mark.parametrize("name", KINDS)
def test_an_adapter_changes_what_is_said(name: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    peft: Any = pytest.importorskip("peft")
    import transformers

    base: Any = transformers.AutoModelForImageTextToText.from_pretrained(folders[name])
    layers = ["c_attn"] if name == "vit-gpt2" else ["query", "value"]
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=layers, fan_in_fan_out=name == "vit-gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it looks at what transformers has renamed
        adapted = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    for parameter_name, parameter in adapted.named_parameters():
        if "lora_" in parameter_name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path / "lora")
    merged = tmp_path / "merged"
    adapted.merge_and_unload().save_pretrained(merged)
    for file in folders[name].iterdir():
        if not (merged / file.name).exists():
            (merged / file.name).write_bytes(file.read_bytes())
    requests = [asked(n) for n in range(3)]
    with_adapter = options(folders[name], adapters={"a": (tmp_path / "lora", 1.0)})
    found = texts(started(Captioner(), with_adapter), requests)
    assert found == texts(started(Captioner(), options(merged)), requests)
    assert found != texts(started(Captioner(), options(folders[name])), requests)


# Through a service

SERVICE = """
controller: {{port: 0}}
component:
  id: captioner
  type: model
  task: image-to-text
  model: {model}
  runtime: embedded
  image: ${{input.image as image}}
  prompt: ${{input.prompt}}
  max_output_length: 6
  do_sample: false
"""


async def test_a_service_answers_streams_and_takes_lists(folders: dict[str, Path], tmp_path: Path) -> None:
    uris = [f"data:image/png;base64,{base64.b64encode(each.data).decode()}" for each in IMAGES]
    model = started(Captioner(), options(folders["blip"]))
    expected = texts(model, [asked(n, max_output_length=6, prompt=PROMPTS[0]) for n in range(4)])
    async with serving(SERVICE.format(model=folders["blip"]), tmp_path) as service:
        answers = await asyncio.gather(
            *(service.run({"image": uri, "prompt": PROMPTS[0]}, output_only=True) for uri in uris)
        )
        assert [answer.json() for answer in answers] == expected
        events = await service.events({"image": uris[1], "prompt": PROMPTS[0]}, output_only=True)
        several = await service.run({"image": uris, "prompt": PROMPTS[0]}, output_only=True)
        assert several.json() == expected
    *pieces, (name, last) = events
    assert "".join(data for _, data in pieces) == expected[1]
    assert len(pieces) > 2
    assert (name, last["status"], last["usage"]["prompt_tokens"]) == ("end", "completed", 3)
