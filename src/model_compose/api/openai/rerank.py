"""`POST /v1/rerank`: which documents answer a query best?

A cross-encoder (task text-classification, with one label) judges each pair of query and document; a model of
task text-embedding compares their vectors.
Source: https://docs.cohere.com/reference/rerank, https://jina.ai/reranker
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import Annotated, Any, Final

import msgspec
from starlette.types import Scope

from model_compose.api.calls import Order
from model_compose.api.names import Model
from model_compose.api.openai.embeddings import off_loop
from model_compose.api.openai.fields import Fields, Given
from model_compose.api.openai.models import CLASSIFICATION, EMBEDDING, Models
from model_compose.compose.run import Run
from model_compose.config.spec import Positive, doc
from model_compose.errors import InvalidInput
from model_compose.tasks.text_classification.spec import Classification


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Documents to put in order. Own parameters of the task (`max_input_length`) may stand beside."""

    model: Annotated[str, doc("the id of a model, as `/v1/models` lists them")]
    query: Annotated[str, doc("what is looked for", min_length=1)]
    documents: Annotated[list[Any], doc("texts, or maps with a `text`", min_length=1)]
    top_n: Annotated[Positive | None, doc("give only so many, the best ones")] = None
    return_documents: Annotated[bool | None, doc("give the documents back too")] = None


REFUSED: Final = {
    "rank_fields": "a document is its `text`",
    "max_chunks_per_doc": "a document is judged as a whole",
    "max_tokens_per_doc": "see `max_input_length`, which counts the query too",
}

FIELDS: Final = Fields(RerankRequest, REFUSED)


def take_rerank(scope: Scope, body: bytes, models: Models) -> Order:
    """Read a request to put documents in order."""
    request, own = FIELDS.read(scope, body)
    model = models.find(request.model, CLASSIFICATION, EMBEDDING)
    texts = [_text(document, i) for i, document in enumerate(request.documents)]
    given = Given(model, own, FIELDS.names)
    if model.task == EMBEDDING:
        given.put("text", "documents", [request.query, *texts])
    else:
        given.put("text", "documents", [{"text": request.query, "text_pair": text} for text in texts])
        given.put("return_probabilities", "return_probabilities", True)
    answer = _Ranking(model, texts, request.top_n or len(texts), bool(request.return_documents))
    return Order(model.workflow, given.values, given.names, answer)


def _text(document: Any, index: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    where = f"documents[{index}]"
    if isinstance(document, dict) and len(document) > 1:
        other = next(key for key in document if key != "text")
        raise InvalidInput(f"`{where}` has a field `{other}`", field=where, hint="a document is its `text`")
    if not isinstance(text, str) or not text:
        raise InvalidInput(f"`{where}` is no text", field=where, hint="send texts, or maps with a `text`")
    return text


class _Ranking(msgspec.Struct, frozen=True):
    """What becomes of the scores."""

    model: Model
    texts: list[str]
    most: int
    documents: bool

    async def body(self, run: Run, output: Any) -> bytes:
        if self.model.task == EMBEDDING:
            vectors = [each.embedding for each in output]
            numbers = len(vectors) * len(vectors[0])
            scores = await off_loop(lambda: _cosines(vectors[0], vectors[1:]), numbers)
        else:
            scores = _judged(output, self.model)
        best = sorted(range(len(scores)), key=lambda i: -scores[i])[: self.most]
        tokens = run.usage.prompt_tokens if run.usage else 0
        return msgspec.json.encode(
            {
                "id": f"rerank-{run.id}",
                "object": "list",
                "model": self.model.name,
                "results": [self._result(i, scores[i]) for i in best],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    def _result(self, index: int, score: float) -> dict[str, Any]:
        document = {"document": {"text": self.texts[index]}} if self.documents else {}
        return {"index": index, "relevance_score": score, **document}

    def events(self, run: Run) -> Any:
        raise NotImplementedError  # no request asks for them


def _judged(found: Sequence[Classification], model: Model) -> list[float]:
    labels = len(found[0].probabilities or ())
    if labels > 1:
        raise InvalidInput(
            f"`{model.name}` has {labels} labels, and a reranker has one",
            field="model",
            hint="take a cross-encoder, or a model of task `text-embedding`",
        )
    return [each.score for each in found]


def _cosines(query: Sequence[float], documents: Sequence[Sequence[float]]) -> list[float]:
    return [_cosine(query, document) for document in documents]


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(map(mul, a, b)) / lengths if lengths else 0.0
