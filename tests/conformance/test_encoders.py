"""Do the blocks that label texts, embed them and search do what they promise?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import models, tiny_models
from tests.compose.apps import output_of
from tests.conformance import repositories
from tests.conformance.blocks import Hub, answered, block, mistakes_of, planned, running, together

from model_compose.errors import ModelUnavailable
from model_compose.tasks.text_classification.huggingface import Classifier

SST2 = "distilbert-base-uncased-finetuned-sst-2-english"
CALLERS = 64
DISHES = ["a soup of onions", "bread with olives", "a cake of apples", "fried fish", "rice with beans", "jam"]


async def test_15_a_text_has_a_label_and_a_score(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer(SST2)
    async with running(block(15), tmp_path) as app:
        found = [await output_of(app, {"text": text}) for text in ("w3 w4 w5", "w40 w41", "w90")]
    assert all(set(each) == {"label", "score"} for each in found)
    assert {each["label"] for each in found} <= {"POSITIVE", "NEGATIVE"}
    assert all(0.5 <= each["score"] <= 1 for each in found)


@pytest.mark.model
async def test_16_a_text_is_384_numbers(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer("sentence-transformers/all-MiniLM-L6-v2")
    async with running(block(16), tmp_path) as app:
        texts = ["a man plays the guitar", "somebody makes music", "shares fell on Monday"]
        found = [(await output_of(app, {"text": text}))["embedding"] for text in texts]
    assert [len(each) for each in found] == [384] * 3
    assert near(found[0], found[1]) > near(found[0], found[2]) + 0.2
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(models.minilm_hf()), device="cpu").encode(texts)
    assert all(near(ours, theirs) > 0.9999 for ours, theirs in zip(found, reference.tolist(), strict=True))


def near(a: Sequence[float], b: Sequence[float]) -> float:
    """Their cosine, for vectors of length 1."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_17_components_that_are_missing_are_told(tmp_path: Path) -> None:
    told = [mistake.message for mistake in mistakes_of(block(17), tmp_path)]
    assert told == ["there is no component `embedder`", "there is no component `vector-store`"]


@pytest.mark.model
async def test_17_a_question_finds_documents(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer("sentence-transformers/all-MiniLM-L6-v2")
    components = """
components:
  - id: embedder
    type: model
    task: text-embedding
    model: sentence-transformers/all-MiniLM-L6-v2
    text: ${input.text as text}
  - id: vector-store
    type: vector-store
    storage_dir: ./store
    actions:
      - id: insert
        method: insert
        collection: dishes
        vector: ${input.vector}
        vector_id: ${input.id}
        metadata:
          text: ${input.text}
      - id: search
        method: search
        collection: dishes
        query: ${input.vector}
        top_k: ${input.top_k}
"""
    workflows = (
        block(17)
        .replace("workflow:\n", "workflows:\n- id: search\n  default: true\n")
        .replace("  title: Document Search", "  title: Document Search")
    )
    fill = """
- id: fill
  jobs:
    - id: embed
      component: embedder
      input:
        text: ${input.text}
    - id: keep
      component: vector-store
      action: insert
      input:
        vector: ${jobs.embed.output}
        id: ${input.id}
        text: ${input.text}
"""
    async with running(components + workflows + fill, tmp_path) as app:
        for i, dish in enumerate(DISHES):
            await output_of(app, {"text": dish, "id": f"dish-{i}"}, "fill")
        found: list[dict[str, Any]] = await output_of(app, {"query": "something sweet with apples"})
    assert len(found) == 5
    assert found[0]["id"] == "dish-2"
    assert found[0]["metadata"]["text"] == DISHES[2]
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


@pytest.mark.parametrize(("number", "name"), [(26, "distilbert-base-uncased"), (43, "bert-base")])
async def test_callers_who_come_together_share_batches(
    number: int, name: str, hub: Hub, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.offer(name)
    rows: list[int] = []
    forward = Classifier.forward

    def counted(self: Classifier, items: Any, step: Any) -> Any:
        rows.append(len(items))
        return forward(self, items, step)

    monkeypatch.setattr(Classifier, "forward", counted)
    _, options = planned(block(number), tmp_path)
    assert options.batch_size == 32
    async with running(block(number), tmp_path) as app:
        alone = await output_of(app, "w3 w4 w5")
        rows.clear()
        found = await together(app, ["w3 w4 w5"] * CALLERS)
    assert all(each["label"] == alone["label"] for each in found)
    assert [each["score"] for each in found] == pytest.approx([alone["score"]] * CALLERS, abs=1e-5)
    assert sum(rows) == CALLERS
    assert max(rows) <= 32
    assert len(rows) <= CALLERS // 8


async def test_43_a_repository_that_is_not_there_is_told(hub: Hub, in_process: None, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="`bert-base` is private, or does not exist"):
        await answered(block(43), tmp_path, "w3")


async def test_43_weights_without_a_head_are_told(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.add("bert-base", repositories.files_in(tiny_models.encoder("bert", tmp_path / "bert")))
    with pytest.raises(ModelUnavailable, match="classifier"):
        await answered(block(43), tmp_path, "w3")
