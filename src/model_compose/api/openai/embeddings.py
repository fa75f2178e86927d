"""`POST /v1/embeddings`: which vectors do texts have?

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import array
import asyncio
import base64
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from starlette.types import Scope

from model_compose.api.calls import Order
from model_compose.api.names import Model
from model_compose.api.openai.fields import Fields, Given
from model_compose.api.openai.models import EMBEDDING, Models
from model_compose.compose.run import Run
from model_compose.config.spec import Positive, doc
from model_compose.errors import InvalidInput
from model_compose.tasks.text_embedding.spec import Embedding

T = TypeVar("T")

#: Numbers whose writing keeps the event loop for about a millisecond.
_MANY: Final = 10_000


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts to embed. Own parameters of the task (`normalize`, `truncate`) may stand beside."""

    model: Annotated[str, doc("the id of a model, as `/v1/models` lists them")]
    input: Annotated[str | list[Any], doc("a text or its tokens, or a list of either")]
    encoding_format: Annotated[
        Literal["float", "base64"] | None, doc("numbers, or their 32-bit floats in base64")
    ] = None
    dimensions: Annotated[Positive | None, doc("keep so many first numbers, of models made for that")] = None
    user: Annotated[str | None, doc("accepted, and changes nothing")] = None


FIELDS: Final = Fields(EmbeddingRequest, {})


def take_embeddings(scope: Scope, body: bytes, models: Models) -> Order:
    """Read a request for the vectors of texts."""
    request, own = FIELDS.read(scope, body)
    model = models.find(request.model, EMBEDDING)
    given = Given(model, own, FIELDS.names)
    given.put("text", "input", _texts(request.input))
    given.put("dimensions", "dimensions", request.dimensions)
    if "truncate" not in own and "truncate" not in model.said:
        given.put("truncate", "truncate", False)  # what was cut, clients of this API would not see
    return Order(
        model.workflow, given.values, given.names, _Vectors(model, request.encoding_format or "float")
    )


def _texts(given: str | list[Any]) -> str | list[Any]:
    """One text or its tokens, or a list of either."""
    if isinstance(given, str):
        return given
    if not given:
        raise InvalidInput("`input` is an empty list", field="input")
    return given


async def off_loop(work: Callable[[], T], numbers: int) -> T:
    """Do what takes long with many numbers elsewhere."""
    return await asyncio.to_thread(work) if numbers > _MANY else work()


class _Vectors(msgspec.Struct, frozen=True):
    """What vectors become."""

    model: Model
    form: Literal["float", "base64"]

    async def body(self, run: Run, output: Any) -> bytes:
        vectors: list[Embedding] = output if isinstance(output, list) else [output]
        numbers = sum(len(each.embedding) for each in vectors)
        return await off_loop(lambda: self._encoded(run, vectors), numbers)

    def _encoded(self, run: Run, vectors: Sequence[Embedding]) -> bytes:
        write = _in_base64 if self.form == "base64" else list
        tokens = run.usage.prompt_tokens if run.usage else 0
        return msgspec.json.encode(
            {
                "object": "list",
                "data": [
                    {
                        "object": "embedding",
                        "index": i,
                        "embedding": write(each.embedding),
                        **({"truncated": True} if each.truncated else {}),
                    }
                    for i, each in enumerate(vectors)
                ],
                "model": self.model.name,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    def events(self, run: Run) -> Any:
        raise NotImplementedError  # no request asks for them


def _in_base64(vector: Sequence[float]) -> str:
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
