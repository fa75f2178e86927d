"""What does Unsloth's driver refuse to load? Run by the tests, in the Python that has Unsloth.

    PYTHONPATH=src python refusals.py TOY SCRATCH

prints for each attempt the error and its hint, as a JSON object. Unsloth is imported once for all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from model_compose.drivers.contract import LoadOptions, Quantization
from model_compose.drivers.unsloth.library import Unsloth, begin
from model_compose.errors import ModelLoadError
from model_compose.sources.spec import LoadedSource


def options(folder: Path, scratch: str, **more: Any) -> LoadOptions:
    source = LoadedSource(path=str(folder), format=None, revision=None, origin=folder.name, size_bytes=1)
    return LoadOptions(task="text-generation", source=source, threads=1, scratch=scratch, **more)


def attempt(given: LoadOptions) -> list[str]:
    from model_compose.drivers.huggingface.load import read_config

    try:
        loaded = Unsloth().load(given, "AutoModelForCausalLM", lambda *_: None, read_config(given))
    except ModelLoadError as error:
        return [error.message, str(error.hint)]
    return ["", json.dumps(loaded.details)]


def main(toy: Path, scratch: str) -> None:
    os.environ["UNSLOTH_CPU_LOAD_IN_4BIT"] = "0"  # as on a machine whose CPU cannot
    begin(options(toy, scratch))
    lacking = shutil.copytree(toy, Path(scratch) / "lacking")
    weights = lacking / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors.pop("model.norm.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    misleading = shutil.copytree(toy, Path(scratch) / "other-bnb-4bit")
    shutil.copytree(toy, Path(scratch) / "other")
    nf4 = Quantization(type="nf4", double_quant=True)
    found = {
        "as it is": attempt(options(toy, scratch, precision="float32")),
        "no such device": attempt(options(toy, scratch, device="cuda")),
        "half precision": attempt(options(toy, scratch, precision="float16")),
        "weights are missing": attempt(options(lacking, scratch)),
        "a misleading name": attempt(options(misleading, scratch)),
        "no 4 bits": attempt(options(toy, scratch, quantization=nf4)),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
