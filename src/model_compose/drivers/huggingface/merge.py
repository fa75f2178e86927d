"""How do adapters become part of the weights, in a folder that anything can load?"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import torch
from safetensors import SafetensorError
from torch import nn

from model_compose.drivers.contract import LoadedAdapter, LoadOptions, LoadProgress
from model_compose.drivers.huggingface import load
from model_compose.drivers.huggingface.lora_files import Delta, read
from model_compose.errors import BadRequest, ModelLoadError, ServiceError

#: What lies beside the weights and is no weights: tokenizer, chat template, code, licence.
_BESIDE: Final = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".spm", ".bpe", ".vocab", ".py")
_TERMS: Final = ("LICENSE", "LICENCE", "NOTICE")
#: Which class a model of a task has, where its configuration does not name one of transformers.
_CLASSES: Final[dict[str, load.Auto]] = {
    "text-embedding": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
}


def merge(options: LoadOptions, out: Path, progress: LoadProgress) -> None:
    """Write a model with its adapters in its weights into a folder that is empty or not there yet.

    The weights have the number format of the checkpoint, or that of `precision`; `quantization` is for
    those who load the result, as sums cannot be made of quantized weights.
    Raises ModelLoadError, DriverMissing, BadRequest for a folder that is in use, ServiceError for one that
    cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadRequest(f"`{out}` is there already, and not an empty folder", hint="name another folder")
    config = load.read_config(options)
    assert options.source is not None
    if getattr(config, "quantization_config", None) is not None:
        raise ModelLoadError(
            f"`{options.source.origin}` is quantized, and adapters cannot be merged into quantized weights",
            hint="name the weights that it was made of in `model`",
        )
    plain = msgspec.structs.replace(
        options,
        device="cpu",
        device_mode="single",
        precision=_precision(options.precision, config),
        quantization=None,
        adapters=(),
    )
    loaded = load.load(plain, _class(options.task, config), progress, config)
    fold(loaded.model, options.adapters, progress)
    progress("write", 0, 1)
    draft = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}."))
    try:
        _write(loaded.model, plain, draft)
        _open_to_all(draft)
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    progress("write", 1, 1)


def fold(model: Any, adapters: Sequence[LoadedAdapter], progress: LoadProgress) -> None:
    """Add adapters to the weights of their layers, with one rounding. Raises ModelLoadError."""
    found: dict[str, list[tuple[float, Delta]]] = defaultdict(list)
    for adapter in adapters:
        for delta in read(model, adapter):
            if adapter.weight != 0.0:
                found[delta.layer].append((adapter.weight, delta))
    for done, (layer, deltas) in enumerate(found.items()):
        progress("adapters", done, len(found))
        module = deltas[0][1].module
        _untie(model, module, layer)
        weight = module.get_parameter("weight")
        # A linear layer has [out, in]; an embedding [vocabulary, out], and `Conv1D` of GPT2 [in, out].
        turned = isinstance(module, nn.Embedding) or hasattr(module, "nf")
        total = (weight.T if turned else weight).to(torch.promote_types(weight.dtype, torch.float32))
        total = total.clone()
        for times, delta in deltas:
            factor = torch.tensor(times * delta.scaling).to(total)
            total.addmm_(delta.up.to(total) * factor, delta.down.to(total))
        result = (total.T if turned else total).to(weight.dtype).contiguous()
        if not result.isfinite().all():
            form = str(result.dtype).removeprefix("torch.")
            raise ModelLoadError(f"with its adapters `{layer}` has weights that are no numbers in `{form}`")
        weight.data = result
    progress("adapters", len(found), len(found))


def _untie(model: Any, module: nn.Module, layer: str) -> None:
    """Give a layer weights of its own where it shares them: the embedding and the head often do."""
    weight = module.get_parameter("weight")
    sharers = [each for each in model.modules() if each._parameters.get("weight") is weight]
    if len(sharers) < 2:
        return
    tied = {each for pair in model.all_tied_weights_keys.items() for each in pair}
    if len(sharers) > 2 or len(tied) > 2 or getattr(model.config, "is_encoder_decoder", False):
        raise ModelLoadError(
            f"`{layer}` shares its weights with other layers, so they cannot be different",
            hint="use the adapter without merging it",
        )
    module._parameters["weight"] = nn.Parameter(weight.data.clone(), requires_grad=False)
    model.all_tied_weights_keys = {}
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False


def _precision(precision: str | None, config: Any) -> str:
    """The number format to write: as asked, else that of the checkpoint."""
    if precision not in (None, "auto"):
        return str(precision)
    dtype = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return str(dtype or torch.float32).removeprefix("torch.")


def _class(task: str, config: Any) -> load.Auto:
    """The class that the checkpoint was saved from, so that all of its weights are kept."""
    import transformers

    names = getattr(config, "architectures", None) or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        return _CLASSES.get(task, "AutoModelForCausalLM")
    headless = transformers.MODEL_MAPPING.get(type(config), None)
    return "AutoModel" if getattr(headless, "__name__", None) == names[0] else cast("load.Auto", names[0])


def _write(model: Any, options: LoadOptions, draft: Path) -> None:
    import transformers

    # Half of its functions have no types.
    library: Any = transformers
    assert options.source is not None
    files = load.Files.of(options.source.path)
    folder = Path(files.folder)
    defaults = folder / "generation_config.json"
    if defaults.is_file() and model.can_generate():
        model.generation_config = (
            library.GenerationConfig()
        )  # the file is copied; saving it anew may refuse it
    library.utils.logging.disable_progress_bar()
    try:
        model.save_pretrained(draft)
    except (ValueError, RuntimeError) as error:
        raise ModelLoadError(f"transformers cannot save `{options.source.origin}`: {error}") from error
    except SafetensorError as error:
        raise ServiceError(f"the weights cannot be written: {error}") from error
    if files.gguf is not None:
        load.load_tokenizer(options, model.config).save_pretrained(draft)
        return
    for path in _beside(folder):
        target = draft / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _beside(folder: Path) -> Iterator[Path]:
    """The files of a model that its weights do not change."""
    for path in sorted(folder.iterdir()):
        kept = path.suffix in _BESIDE or path.name.upper().startswith(_TERMS)
        made = path.name == "config.json" or path.name.endswith(".index.json")
        if path.is_file() and kept and not made and not path.name.startswith("adapter_"):
            yield path
    modules = folder / "modules.json"  # of sentence-transformers: pooling and what else follows the model
    if modules.is_file():
        for module in msgspec.json.decode(modules.read_bytes(), type=list[_Module]):
            part = folder / module.path
            if module.path and part.is_dir() and part.resolve().is_relative_to(folder.resolve()):
                yield from (path for path in sorted(part.iterdir()) if path.is_file())


class _Module(msgspec.Struct, frozen=True):
    """A line of `modules.json`."""

    path: str = ""


def _open_to_all(draft: Path) -> None:
    """Give files and folder the rights that others get here: those of a draft are for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (draft, *draft.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
