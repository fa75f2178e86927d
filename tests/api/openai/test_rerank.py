from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests import models, tiny_models
from tests.api.openai.clients import ECHO, post, refused, served

DOCUMENTS = ["The cat sits on the sofa.", "Stocks fell sharply on Monday.", "A kitten lies on the couch."]


def file(folder: Path, labels: int) -> str:
    tiny_models.classifier("bert", folder / "judge", num_labels=labels)
    return f"""
controller: {{port: 0}}
component: {{id: judge, type: model, task: text-classification, model: {folder / "judge"}, runtime: embedded}}
"""


def expected(folder: Path, query: str, documents: list[str]) -> list[float]:
    """What the library says of pairs."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder / "judge").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "judge")
    with torch.inference_mode():
        return [
            torch.sigmoid(model(**tokenizer(query, text, return_tensors="pt")).logits)[0, 0].item()
            for text in documents
        ]


async def test_a_cross_encoder_judges_pairs_as_its_library_does(tmp_path: Path) -> None:
    documents = ["w4 w9 w30", "w5", "w31 w8 w22 w6", "w10 w11"]
    text = file(tmp_path, 1)
    scores = expected(tmp_path, "w7 w8", documents)
    async with served(text, tmp_path) as (service, _):
        everything = await post(
            service, "rerank", model="judge", query="w7 w8", documents=documents, return_documents=True
        )
        best = await post(
            service,
            "rerank",
            model="judge",
            query="w7 w8",
            documents=[{"text": d} for d in documents],
            top_n=2,
        )
    results = everything.json()["results"]
    order = sorted(range(4), key=lambda i: -scores[i])
    assert [result["index"] for result in results] == order
    assert [result["relevance_score"] for result in results] == pytest.approx(
        [scores[i] for i in order], abs=1e-4
    )
    assert results[0]["document"] == {"text": documents[order[0]]}
    assert everything.json()["usage"]["total_tokens"] > 0
    assert [result["index"] for result in best.json()["results"]] == order[:2]
    assert "document" not in best.json()["results"][0]


async def test_a_classifier_of_several_labels_is_no_reranker(tmp_path: Path) -> None:
    async with served(file(tmp_path, 3), tmp_path) as (service, _):
        error = await refused(service, "rerank", model="judge", query="w3", documents=["w4"])
    assert error["message"].startswith("`judge` has 3 labels")


@pytest.mark.model
@pytest.mark.process
async def test_embeddings_put_documents_in_order_where_there_is_no_cross_encoder(tmp_path: Path) -> None:
    text = f"""
controller: {{port: 0}}
component: {{id: minilm, type: model, task: text-embedding, model: {models.minilm_gguf()}}}
"""
    async with served(text, tmp_path) as (service, _):
        response = await post(service, "rerank", model="minilm", query="a cat", documents=DOCUMENTS)
    results = response.json()["results"]
    assert {result["index"] for result in results[:2]} == {0, 2}
    assert 1 > results[0]["relevance_score"] > results[2]["relevance_score"] + 0.2


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("documents", [], "documents"),
        ("documents", ["a", 5], "documents[1]"),
        ("documents", [{"text": "a", "title": "b"}], "documents[0]"),
        ("query", "", "query"),
        ("top_n", 0, "top_n"),
        ("rank_fields", ["title"], "rank_fields"),
        ("topn", 2, "topn"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    field: str, value: Any, param: str, tmp_path: Path
) -> None:
    given = {"model": "vectors", "query": "a", "documents": ["a"], field: value}
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, "rerank", **given)
    assert error["param"] == param
