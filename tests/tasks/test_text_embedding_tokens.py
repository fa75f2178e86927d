"""text-embedding of tokens in place of a text, by every driver, with the real MiniLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests import models
from tests.compose.apps import app_of, start

from model_compose.errors import InvalidInput, RequestTooLong
from model_compose.tasks.text_embedding.given import given_tokens

#: `hello world` with the tokens that begin and end it.
HELLO = [101, 7592, 2088, 102]


@pytest.mark.model
@pytest.mark.parametrize(
    ("driver", "model"),
    [("llamacpp", models.MINILM_Q8_0), ("huggingface", models.MINILM_HF), ("custom", models.MINILM_ONNX)],
)
async def test_tokens_get_the_vector_of_their_text(driver: str, model: str, tmp_path: Path) -> None:
    text = f"""
component:
  {{type: model, task: text-embedding, driver: {driver}, model: {models.folder() / model}, runtime: embedded}}
"""
    async with app_of(text, tmp_path) as app:

        async def vectors(given: Any, **more: Any) -> Any:
            _, output = await start(app, {"text": given, **more})
            return output

        of_text, of_tokens = await vectors("hello world"), await vectors(HELLO)
        several = await vectors([HELLO, "hello world", [101, 102]])
        with pytest.raises(InvalidInput, match="there is no token 999999"):
            await vectors([999_999])
        with pytest.raises(RequestTooLong):
            await vectors([101] * 2000, truncate=False)
        cut = await vectors([101] * 2000)
    assert of_tokens.embedding == pytest.approx(of_text.embedding, abs=1e-5)
    assert len(several) == 3
    assert several[0].embedding == pytest.approx(of_text.embedding, abs=1e-3)
    assert not of_tokens.truncated
    assert cut.truncated


def test_what_is_too_long_is_cut_or_refused() -> None:
    assert given_tokens([1, 2, 3], 3, 4, truncate=False) == ([1, 2, 3], False)
    assert given_tokens([1, 2, 3], 2, 4, truncate=True) == ([1, 2], True)
    with pytest.raises(RequestTooLong) as caught:
        given_tokens([1, 2, 3], 2, 4, truncate=False)
    assert (caught.value.size, caught.value.limit) == (3, 2)
    with pytest.raises(InvalidInput, match="there is no token 4: the model has 4"):
        given_tokens([4], 2, 4, truncate=True)
