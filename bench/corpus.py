"""Which real vectors are stores measured with?

Sentences from the docstrings of whatever is installed here, embedded with all-MiniLM-L6-v2: real text with
real near-duplicates, made offline. The vectors are made once and kept in `.cache/vectors`.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.models import minilm_hf

COUNT = 100_000
QUERIES = 200
DIMENSION = 384

_CACHE = Path(__file__).parents[1] / ".cache" / "vectors"
_SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`])|\n\s*\n")
_WORDS = range(4, 25)
_ENOUGH = 150_000
_PART = 2_000


def sentences() -> Iterator[str]:
    """Each sentence once, in the order of the files' names."""
    seen: set[str] = set()
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(root).rglob("*.py")):
            for text in _docstrings(path):
                for each in _SENTENCE.split(text):
                    sentence = " ".join(each.split())
                    if len(sentence.split()) in _WORDS and len(sentence) < 300 and sentence not in seen:
                        seen.add(sentence)
                        yield sentence


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def vectors() -> tuple[Any, Any]:
    """What is stored, float32 [COUNT, DIMENSION], and what is searched for, float32 [QUERIES, DIMENSION]."""
    import numpy as np

    kept = _CACHE / f"minilm-{COUNT}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        parts = _embedded()
        part = kept.with_suffix(".part.npy")
        np.save(part, np.concatenate([np.load(each) for each in parts]))
        part.replace(kept)
        for each in parts:
            each.unlink()
    made = np.load(kept)
    return made[:COUNT], made[COUNT : COUNT + QUERIES]


def _embedded() -> list[Path]:
    """Files with the vectors of as many sentences, taken evenly from those found; the last are the queries.

    It takes the better part of an hour on two cores, so one that is ended goes on where it was.
    """
    import itertools
    import random
    import warnings

    import numpy as np
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of those who wrote what is parsed
        found = list(itertools.islice(sentences(), _ENOUGH))
    assert len(found) >= COUNT + QUERIES, f"{len(found)} sentences are too few: `make setup` installs more"
    chosen = random.Random(0).sample(found, COUNT + QUERIES)
    print(f"     embedding {len(chosen):,} of {len(found):,} sentences, once", flush=True)
    model = SentenceTransformer(str(minilm_hf()), device="cpu")
    parts = []
    for start in range(0, len(chosen), _PART):
        path = _CACHE / f"minilm-{COUNT}-{start}.npy"
        parts.append(path)
        if not path.exists():
            some = model.encode(chosen[start : start + _PART], batch_size=64, normalize_embeddings=True)
            beside = path.with_suffix(".part.npy")
            np.save(beside, some)
            beside.replace(path)
    return parts
