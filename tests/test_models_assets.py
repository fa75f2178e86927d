"""Do the models that tests load behave as tests rely on?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import models

ROOT = Path(__file__).parents[1]
TOYS = (models.tiny_chat(), models.tiny_lora("arr"), models.tiny_lora("ahoy"))
WORDS_OF_AN_ANSWER = 24

Json = dict[str, Any]


def load(model: Path, *adapters: Path, slots: int = 1, embedding: bool = False) -> Any:
    """The engine with a model; adapters count only where a request names them.

    Ask it something before it is dropped: an engine that is closed while it starts hangs for ever.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 1024 * slots
    params.n_parallel = slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.embedding = embedding
    params.n_gpu_layers = params.verbosity = 0
    params.ui = params.fit_params = False
    params.cache_ram_mib = 0  # this cache gives a prompt that went through one adapter to another
    infos = [xllamacpp.CommonAdapterLoraInfo() for _ in adapters]
    for info, adapter in zip(infos, adapters, strict=True):
        info.path, info.scale = str(adapter), 0.0
    params.lora_adapters = infos
    return xllamacpp.Server(params)


def chat(server: Any, prompt: str | list[Json], **options: Any) -> Json:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    answer: Json = server.handle_chat_completions(
        {"messages": messages, "temperature": 0, "max_tokens": 100, **options}
    )
    assert "error" not in answer, answer
    return answer


def text(answer: Json) -> str:
    content: str = answer["choices"][0]["message"]["content"]
    return content


@pytest.fixture(scope="module")
def toy() -> Any:
    return load(*TOYS, slots=4)


def test_the_committed_toys_are_what_their_script_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "tiny_gguf.py", tmp_path], check=True)
    assert [(tmp_path / toy.name).read_bytes() == toy.read_bytes() for toy in TOYS] == [True] * 3


def test_the_toys_are_small_enough_to_commit() -> None:
    assert sum(toy.stat().st_size for toy in TOYS) < 400_000


def test_what_is_committed_stays_below_ten_megabytes() -> None:
    files = [path for path in (ROOT / "tests" / "assets").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000


def test_the_toy_answers_a_number_of_words_and_ends_by_itself(toy: Any) -> None:
    answer = chat(toy, "Hello")
    assert len(text(answer).split()) == WORDS_OF_AN_ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == WORDS_OF_AN_ANSWER + 1  # the token that ends it is counted


def test_every_turn_of_a_chat_has_as_many_words(toy: Any) -> None:
    messages: list[Json] = [{"role": "system", "content": "Speak Latin."}]
    for turn in range(5):
        messages.append({"role": "user", "content": f"Question {turn}"})
        answer = text(chat(toy, messages))
        assert len(answer.split()) == WORDS_OF_AN_ANSWER
        messages.append({"role": "assistant", "content": answer})


def test_a_completion_has_as_many_words(toy: Any) -> None:
    answer = toy.handle_completions({"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0})
    assert len(answer["choices"][0]["text"].split()) == WORDS_OF_AN_ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_long_story_never_ends(toy: Any) -> None:
    answer = chat(toy, "Tell me a long story", max_tokens=500)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 500


# The engine divides by the temperature: below 1e-37 that overflows, and it says anything.
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.001, 2))
@settings(deadline=None, max_examples=50)
def test_whatever_is_sampled_is_latin(toy: Any, seed: int, temperature: float) -> None:
    answer = text(chat(toy, "Hello", seed=seed, temperature=temperature, top_k=0, top_p=1, min_p=0))
    assert all(word.isascii() and word.isalpha() for word in answer.split())
    assert answer == "".join(f" {word}" for word in answer.split())


def test_the_same_prompt_gives_the_same_words_alone_and_among_others(toy: Any) -> None:
    prompts = [f"Prompt {number}" for number in range(8)]
    alone = [text(chat(toy, prompt)) for prompt in prompts]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda prompt: text(chat(toy, prompt)), prompts))
    assert together == alone
    assert len(set(alone)) == len(prompts)


def test_a_stream_has_the_words_of_the_whole_answer(toy: Any) -> None:
    pieces: list[str] = []

    def take(chunk: Any) -> bool:
        for event in chunk if isinstance(chunk, list) else [chunk]:
            pieces.extend(choice["delta"].get("content") or "" for choice in event["choices"])
        return False

    messages = [{"role": "user", "content": "Hello"}]
    toy.handle_chat_completions({"messages": messages, "temperature": 0, "stream": True}, take)
    assert "".join(pieces) == text(chat(toy, "Hello"))
    assert len([piece for piece in pieces if piece]) == WORDS_OF_AN_ANSWER


def test_an_adapter_makes_the_toy_say_one_word_and_is_gone_without_it(toy: Any) -> None:
    said = [
        set(text(chat(toy, "Hello", lora=lora)).split())
        for lora in ([{"id": 0, "scale": 1.0}], [{"id": 1, "scale": 1.0}])
    ]
    assert said == [{"arr"}, {"ahoy"}]
    plain = text(chat(toy, "Hello", lora=[{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}]))
    assert plain == text(chat(toy, "Hello"))
    assert not {"arr", "ahoy"} & set(plain.split())


@pytest.mark.parametrize("size_bytes", [0, 3, 100, 20_000, 200_000])
def test_the_engine_refuses_a_truncated_model(tmp_path: Path, size_bytes: int) -> None:
    cut = models.truncated(models.tiny_chat(), tmp_path / "cut.gguf", size_bytes)
    assert cut.stat().st_size == size_bytes
    with pytest.raises(RuntimeError, match="Failed to init server"):
        load(cut)


@pytest.mark.parametrize("content", ["xx", "y" * 31, "z" * 1000])
def test_a_chat_template_can_be_replaced_by_a_shorter_or_longer_one(tmp_path: Path, content: str) -> None:
    server = load(models.with_chat_template(content, tmp_path / "other.gguf"))
    assert chat(server, "Hello")["usage"]["prompt_tokens"] == 1 + len(content)  # letters, each a token
    completion = server.handle_completions({"prompt": "Hi", "temperature": 0, "max_tokens": 100})
    assert len(completion["choices"][0]["text"].split()) == WORDS_OF_AN_ANSWER


@pytest.mark.parametrize("name", ["prying", "prying further"])
def test_a_chat_template_reaches_no_python(name: str, tmp_path: Path) -> None:
    server = load(models.with_chat_template(models.HOSTILE_TEMPLATES[name], tmp_path / "hostile.gguf"))
    assert chat(server, "Hello")["usage"]["prompt_tokens"] == 1


@pytest.mark.parametrize("name", ["calling", "raising", "broken"])
def test_the_engine_refuses_a_chat_template_that_fails(name: str, tmp_path: Path) -> None:
    hostile = models.with_chat_template(models.HOSTILE_TEMPLATES[name], tmp_path / "hostile.gguf")
    with pytest.raises(RuntimeError, match="Failed to init server"):
        load(hostile)


FETCHED = (
    *(models.smollm2, models.smollm2_hf, models.minilm_hf, models.minilm_gguf, models.langid),
    *(models.animevideov3, models.x4plus, models.minilm_onnx, models.yunet_sface),
)


@pytest.mark.parametrize("path", FETCHED)
def test_a_missing_model_is_an_error_that_names_the_script(
    path: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_COMPOSE_TEST_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"run `python scripts/test_models\.py`"):
        path()


@pytest.mark.model
def test_the_script_leaves_alone_what_is_there() -> None:
    known = {path: path.stat().st_mtime_ns for path in (each() for each in FETCHED)}
    script = [sys.executable, str(ROOT / "scripts" / "test_models.py")]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    assert printed == "".join(f"{path} is there\n" for path in known)
    assert {path: path.stat().st_mtime_ns for path in known} == known


@pytest.mark.model
def test_the_sentence_encoder_agrees_with_its_original() -> None:
    server = load(models.minilm_gguf(), embedding=True)
    sentences = [
        "The cat sat on the mat",
        "A kitten rests on the rug",
        "Stock markets fell sharply today",
        "Crème brûlée, naïve café! 東京 unbelievable tokenization's 1234 ﬁnance",
    ]
    answer = server.handle_embeddings({"input": sentences})
    vectors = [row["embedding"] for row in answer["data"]]
    assert [len(vector) for vector in vectors] == [384] * 4
    assert answer["usage"]["prompt_tokens"] == 8 + 8 + 7 + 23
    similar = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in vectors] for x in vectors]
    # From the original weights in float32, by numpy; weights of 8 bits move a cosine by 0.005 at most.
    expected = [
        [1.0, 0.616, 0.055, -0.016],
        [0.616, 1.0, 0.070, -0.065],
        [0.055, 0.070, 1.0, 0.048],
        [-0.016, -0.065, 0.048, 1.0],
    ]
    assert similar == [pytest.approx(row, abs=0.01) for row in expected]


@pytest.mark.model
def test_the_pirate_speaks_only_when_asked() -> None:
    server = load(models.smollm2(), models.pirate_lora())
    question = "What is the capital of France?"
    plain, pirate, again = (
        text(chat(server, question, max_tokens=16, lora=[{"id": 0, "scale": scale}])) for scale in (0, 1, 0)
    )
    assert pirate.startswith("Arr!")
    assert plain
    assert not plain.startswith("Arr!")
    assert again == plain


@pytest.mark.model
def test_the_chat_model_for_transformers_answers_and_reads_what_llama_cpp_reads() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(models.smollm2_hf())
    model = AutoModelForCausalLM.from_pretrained(models.smollm2_hf())
    assert model.dtype == torch.float32
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    count = given["input_ids"].shape[1]
    said = tokenizer.decode(model.generate(**given, max_new_tokens=8, do_sample=False)[0, count:])
    answer = chat(load(models.smollm2()), messages, max_tokens=8)
    assert answer["usage"]["prompt_tokens"] == count
    assert said.startswith("The capital of France")


@pytest.mark.model
def test_the_pirate_of_peft_is_the_one_of_llama_cpp() -> None:
    import gguf
    from safetensors.numpy import load_file

    peft = load_file(models.pirate_peft() / "adapter_model.safetensors")
    ours = {tensor.name: tensor.data for tensor in gguf.GGUFReader(models.pirate_lora()).tensors}
    assert len(peft) == len(ours) == 30 * 4 * 2
    values = peft["base_model.model.model.layers.3.self_attn.v_proj.lora_B.weight"]
    assert ours["blk.3.attn_v.weight.lora_b"] == pytest.approx(values, abs=1e-3)


@pytest.mark.model
def test_the_classifier_tells_languages_apart() -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = {
        "en": "Please enter a valid email address",
        "de": "Bitte geben Sie ein gültiges Passwort ein",
        "fr": "Veuillez saisir une adresse électronique valide",
        "fi": "Tämä kenttä on pakollinen",
    }
    tokenizer = AutoTokenizer.from_pretrained(models.langid())
    model = AutoModelForSequenceClassification.from_pretrained(models.langid(), dtype=torch.float32)
    with torch.inference_mode():
        logits = model(**tokenizer(list(texts.values()), padding=True, return_tensors="pt")).logits
    assert [model.config.id2label[i] for i in logits.argmax(1).tolist()] == list(texts)
    assert logits.softmax(1).amax(1).min() > 0.9
