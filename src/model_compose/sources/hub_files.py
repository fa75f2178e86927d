"""Which files of a repository are worth having?

Pure: names in, names out. Repositories hold the same weights several times (PyTorch, safetensors, ONNX,
Flax, half precision); downloading all of them costs many times the disk and the wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from model_compose.errors import SourceNotFound, did_you_mean
from model_compose.sources.spec import Format, format_of_name

_CONFIGURATION: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".bpe", ".vocab")

# Folders that hold the same weights for other engines, and files that training left behind.
_OTHER_ENGINES: Final = frozenset(
    {"onnx", "openvino", "original", "coreml", "tflite", "flax", "tf", "tensorrt", "gguf", "runs"}
)
_TRAINING: Final = ("training_args", "optimizer", "scheduler", "rng_state")

# The names that transformers, diffusers and peft look for. What else lies beside them is a copy: one in
# half precision (`model.fp16.safetensors`) or for another program (`consolidated.safetensors`).
_STANDARD: Final = frozenset({"model", "pytorch_model", "diffusion_pytorch_model", "adapter_model"})

# No model is split further; a name that says so is a name.
_MOST_PARTS: Final = 1000


class Selection(msgspec.Struct, frozen=True):
    """The files to have, as paths in the repository, sorted; `main` is the one to load, None: the folder."""

    files: tuple[str, ...]
    main: str | None
    format: Format


def choose(names: Collection[str], filename: str | None, repository: str) -> Selection:
    """Choose from all files of a repository. Raises SourceNotFound with the names to choose from."""
    if filename is not None:
        return _one(names, filename, repository)
    useful = [name for name in names if not _is_skipped(name)]
    weights: list[str] = []
    for wanted in ("safetensors", "pytorch"):
        weights = weights or [
            name
            for name in useful
            if format_of_name(name) == wanted and not name.rpartition("/")[2].startswith(_TRAINING)
        ]
    if "model_index.json" in names:  # diffusers: what lies at the top is everything once more, in one file
        weights = [name for name in weights if "/" in name]
    if not weights:
        raise _nothing_to_load(names, repository)
    weights += _of_modules(useful, {name.rpartition("/")[0] for name in weights})
    weights = [name for folder in _by_folder(weights) for name in _without_copies(folder)]
    _require_all_parts(weights, names, repository)
    kind = format_of_name(weights[0])
    assert kind is not None  # they were chosen by it
    indexes = [name for name in useful if name.endswith(".index.json") and format_of_name(name[:-11]) != kind]
    configuration = [name for name in useful if name.endswith(_CONFIGURATION) and name not in indexes]
    return Selection(tuple(sorted({*weights, *configuration})), None, kind)


def _one(names: Collection[str], filename: str, repository: str) -> Selection:
    if filename not in names:
        raise SourceNotFound(
            f"there is no file `{filename}` in `{repository}`", hint=did_you_mean(filename, names)
        )
    kind = format_of_name(filename)
    if kind is None:
        raise SourceNotFound(
            f"`{filename}` of `{repository}` is no file of weights that we know", hint=_weights_hint(names)
        )
    files = {filename, *_parts(filename)}
    _require_all_parts(files, names, repository)
    if kind != "gguf":  # a GGUF file holds its own configuration
        folder = filename.rpartition("/")[0]
        files |= {
            name
            for name in names
            if name.endswith(_CONFIGURATION)
            and (name.rpartition("/")[0] in ("", folder) or _is_of_module(name))
        }
    if kind in ("safetensors", "pytorch"):  # graphs of ONNX have in them what follows the pooling
        layers = {name for name in names if _is_of_module(name) and format_of_name(name) == "safetensors"}
        files |= {*layers, *_of_modules(names, {name.rpartition("/")[0] for name in (filename, *layers)})}
    files |= {name for name in names if name == f"{filename}_data"}  # ONNX keeps weights beyond 2 GB there
    return Selection(tuple(sorted(files)), min([filename, *_parts(filename)]), kind)


def _of_modules(names: Iterable[str], had: Collection[str]) -> list[str]:
    """PyTorch weights of modules of sentence-transformers (`2_Dense/`) that have none in another format."""
    return [
        name
        for name in names
        if format_of_name(name) == "pytorch" and _is_of_module(name) and name.rpartition("/")[0] not in had
    ]


def _is_of_module(name: str) -> bool:
    """Whether a file is one of a module of sentence-transformers, such as `1_Pooling/config.json`."""
    folder, _, file = name.partition("/")
    return "/" not in file and folder.partition("_")[0].isdecimal() and "_" in folder


def _is_skipped(name: str) -> bool:
    return any(
        folder in _OTHER_ENGINES or folder.startswith((".", "checkpoint-")) for folder in name.split("/")[:-1]
    )


def _by_folder(names: Iterable[str]) -> list[list[str]]:
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    return list(folders.values())


def _without_copies(names: list[str]) -> list[str]:
    """Of the weights in one folder, those with standard names if any; whole rather than in parts."""
    stems = {name: _stem(name) for name in names}
    standard = [name for name in names if stems[name] in _STANDARD] or names
    whole = {stems[name] for name in standard if not _parts(name)}
    return [name for name in standard if not _parts(name) or stems[name] not in whole]


def _stem(name: str) -> str:
    """`model` for `unet/model-00001-of-00002.safetensors`."""
    base = name.rpartition("/")[2].rpartition(".")[0]
    return base.rpartition("-of-")[0].rpartition("-")[0] if _parts(name) else base


def _parts(name: str) -> list[str]:
    """All parts of a model that is split into files, such as `x-00001-of-00002.gguf`; none if it is not."""
    base, _, ending = name.rpartition(".")
    left, _, total = base.rpartition("-of-")
    stem, _, number = left.rpartition("-")
    if not (stem and number.isdecimal() and total.isdecimal() and int(total) <= _MOST_PARTS):
        return []
    return [f"{stem}-{part:0{len(number)}}-of-{total}.{ending}" for part in range(1, int(total) + 1)]


def _require_all_parts(weights: Collection[str], names: Collection[str], repository: str) -> None:
    for name in weights:
        missing = [part for part in _parts(name) if part not in names]
        if missing:
            raise SourceNotFound(f"`{repository}` lacks `{missing[0]}`, which `{name}` needs")


def _nothing_to_load(names: Collection[str], repository: str) -> SourceNotFound:
    return SourceNotFound(
        f"`{repository}` has no safetensors or PyTorch weights to load as a whole", hint=_weights_hint(names)
    )


def _weights_hint(names: Collection[str]) -> str | None:
    weights = sorted(name for name in names if format_of_name(name))
    if weights:
        listed = ", ".join(f"`{name}`" for name in weights[:40])
        return f"choose one with `filename`: {listed}{', ...' if len(weights) > 40 else ''}"
    return did_you_mean("", names)
