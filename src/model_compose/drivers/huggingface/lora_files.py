"""What is in the files of a LoRA adapter, and does it fit the model?

They are read here and not by peft, which takes 20 seconds to import. What a setting means is as in
peft 0.21 (`peft/tuners/lora`), and tests compare with it.
"""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model_compose.drivers.contract import LoadedAdapter
from model_compose.errors import ModelLoadError

log = logging.getLogger(__name__)

CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
#: `base_model.model.<layer>.lora_A.weight`; older versions put the adapter's name before `weight`.
KEY: Final = re.compile(r"(?P<layer>.+)\.lora_(?:embedding_)?(?P<half>[AB])(?:\.(?!bias$)[^.]+)*")
PREFIX: Final = "base_model.model."
#: Settings that make something else of an adapter than `up @ down`. A null, empty or false one does not.
_REFUSED: Final = (
    *("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication", "lora_bias"),
    *("ensure_weight_tying", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"),
)
#: Ways to begin that leave the base as it is; others put away a part of it, and the rest must be had too.
_HARMLESS_BEGINNINGS: Final = (True, False, None, "gaussian", "eva", "orthogonal")
MERGE_FIRST: Final = "merge it into its base with peft, and use the result as `model`"


class Config(msgspec.Struct, frozen=True):
    """The part of `adapter_config.json` that says how large an adapter is."""

    peft_type: str
    r: Annotated[int, msgspec.Meta(ge=1)] = 8
    lora_alpha: float = 8
    use_rslora: bool | None = None
    rank_pattern: dict[str, Annotated[int, msgspec.Meta(ge=1)]] | None = None
    alpha_pattern: dict[str, float] | None = None
    base_model_name_or_path: str | None = None

    def __post_init__(self) -> None:
        for pattern in (*(self.rank_pattern or ()), *(self.alpha_pattern or ())):
            re.compile(pattern)

    def rank(self, layer: str) -> int:
        """The rank that it has in a layer."""
        return int(_by_pattern(self.rank_pattern, layer, self.r))

    def scaling(self, layer: str) -> float:
        """What its product is multiplied with, beside its weight."""
        rank, alpha = self.rank(layer), _by_pattern(self.alpha_pattern, layer, self.lora_alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


class Delta(NamedTuple):
    """What one adapter adds to the weight of one layer: `scaling * up @ down`.

    layer  its path in the model
    down   [rank, in]; of an embedding, `in` is the vocabulary
    up     [out, rank]
    """

    layer: str
    module: nn.Module
    down: Tensor
    up: Tensor
    scaling: float


def read(model: Any, adapter: LoadedAdapter) -> Iterator[Delta]:
    """What an adapter adds to each layer of a model, as the file has it. Raises ModelLoadError."""
    what = f"adapter `{adapter.name}` (`{adapter.source.origin}`)"
    weights = weights_file(Path(adapter.source.path), what)
    config = read_config(weights.parent / CONFIG, what)
    _warn_of_another_base(model, config, what)
    base = f"`{config.base_model_name_or_path}`" if config.base_model_name_or_path else "another model"
    hint = f"it was trained for {base}"
    try:
        with safe_open(weights, framework="pt") as file:
            halves = _layers(file, model, what, hint)
            for layer, (name, module, keys) in halves.items():
                down, up = (file.get_tensor(keys[half]) for half in "AB")
                _require_fit(config, name, module, down, up, what, hint)
                yield Delta(layer, module, down, up, config.scaling(name))
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{what} cannot be read: {error}") from error


def weights_file(path: Path, what: str) -> Path:
    """The file of weights: the path itself, or what lies in its folder under the name that peft gives."""
    file = path / _WEIGHTS if path.is_dir() else path
    if file.suffix == ".safetensors" and file.is_file():
        return file
    beside = sorted(each.name for each in path.iterdir()) if path.is_dir() else [path.name]
    for name in beside:
        if name.endswith((".bin", ".pt", ".pth")):
            raise ModelLoadError(
                f"{what} is in the format of `{name}`, which may hold code and is not read",
                hint="load it with peft where you trust it, and `save_pretrained` writes safetensors",
            )
        if name.endswith(".gguf"):
            raise ModelLoadError(f"{what} is a GGUF file", hint="it works with `driver: llamacpp`")
    raise ModelLoadError(f"{what} has no `{_WEIGHTS}`", hint="name the folder that peft has saved")


def read_config(path: Path, what: str) -> Config:
    """The part of a configuration that we know. Raises ModelLoadError for what changes more than it says."""
    try:
        written = path.read_bytes()
        config, settings = msgspec.json.decode(written, type=Config), msgspec.json.decode(written)
    except FileNotFoundError:
        raise ModelLoadError(
            f"{what} has no `{CONFIG}`", hint="it lies beside the weights: name the folder, not a file"
        ) from None
    except (OSError, msgspec.DecodeError, re.error) as error:
        raise ModelLoadError(f"the `{CONFIG}` of {what} cannot be read: {error}") from error
    if config.peft_type.upper() != "LORA":
        raise ModelLoadError(f"{what} is of type `{config.peft_type}`, and only `LORA` is supported")
    refused = [key for key in _REFUSED if settings.get(key)]
    # New kinds of LoRA come as settings of this form; the others of it change nothing that we compute.
    refused += [key for key, value in settings.items() if key.startswith("use_") and value]
    refused = [key for key in refused if key != "use_rslora"]
    if settings.get("bias", "none") != "none":
        refused.append("bias")
    if refused:
        shown = ", ".join(f"`{key}`" for key in refused)
        raise ModelLoadError(f"{what} uses {shown}, which is not supported", hint=MERGE_FIRST)
    if settings.get("init_lora_weights") not in _HARMLESS_BEGINNINGS:
        raise ModelLoadError(
            f"{what} began as `{settings['init_lora_weights']}`, which changes the weights of its base",
            hint="save it with `path_initial_model_for_weight_conversion`, which makes plain LoRA of it",
        )
    return config


def _by_pattern(patterns: Mapping[str, float] | None, layer: str, default: float) -> float:
    """The value of the first pattern that is the path of a layer, or an end of it."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            return value
    return default


def _layers(file: Any, model: Any, what: str, hint: str) -> dict[str, tuple[str, nn.Module, dict[str, str]]]:
    """By the path of a layer in the model: its path in the file, itself, and the keys of its two halves."""
    modules = dict(model.named_modules())
    named: dict[str, dict[str, str]] = defaultdict(dict)
    for key in file.keys():  # noqa: SIM118  it is no mapping
        match = KEY.fullmatch(key.removeprefix(PREFIX))
        if match is None:
            _require_same(file, key, model, what)
        elif match["half"] in named[match["layer"]]:
            raise ModelLoadError(f"{what} has two adapters for `{match['layer']}`")
        else:
            named[match["layer"]][match["half"]] = key
    if not named:
        raise ModelLoadError(f"{what} has no LoRA weights")
    places = {name: _place(name, modules, getattr(model, "base_model_prefix", "")) for name in named}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        shown = ", ".join(f"`{name}`" for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelLoadError(
            f"{what} has weights for layers that the model does not have: {shown}{more}", hint=hint
        )
    for name, keys in named.items():
        if len(keys) != 2:
            raise ModelLoadError(f"{what} has only one half of its weights for `{name}`")
        _require_kind(places[name] or "", modules, model, what)
    return {place: (name, modules[place], named[name]) for name, place in places.items() if place is not None}


def _place(layer: str, modules: Mapping[str, nn.Module], prefix: str) -> str | None:
    """The path of a layer in the model, which may have been trained with a head or without (`model.`)."""
    paths = (layer, layer.removeprefix(f"{prefix}."), f"{prefix}.{layer}")
    return next((path for path in paths if path in modules), None)


def _require_same(file: Any, key: str, model: Any, what: str) -> None:
    """Pass over a whole weight if it is the base's: peft saves embeddings beside what is added to them."""
    path = key.removeprefix(PREFIX).replace(".base_layer.", ".")
    own = model.state_dict().get(path)
    if own is not None:
        saved = file.get_tensor(key)
        if saved.shape == own.shape and torch.equal(saved.to(own), own):
            return
    raise ModelLoadError(f"{what} has weights that are no LoRA: `{path}`", hint=MERGE_FIRST)


def _require_kind(path: str, modules: Mapping[str, nn.Module], model: Any, what: str) -> None:
    module, parent = modules[path], modules.get(path.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        raise ModelLoadError(f"{what} changes `{path}`, whose weights are used without calling it")
    if ".experts." in path:  # tokens of several rows come there in an order of their own
        raise ModelLoadError(f"{what} changes `{path}`, and adapters of experts are not supported")
    if isinstance(module, nn.Embedding):
        if module is not model.get_input_embeddings():
            raise ModelLoadError(f"{what} changes `{path}`, which is not the embedding of tokens")
    elif _size(module) is None:
        kind = type(module).__name__
        raise ModelLoadError(f"{what} changes `{path}`, a `{kind}`; adapters are for linear layers")


def _require_fit(
    config: Config, name: str, module: nn.Module, down: Tensor, up: Tensor, what: str, hint: str
) -> None:
    size, rank = _size(module), config.rank(name)
    assert size is not None
    for half, tensor, wanted in (("A", down, (rank, size[0])), ("B", up, (size[1], rank))):
        if tuple(tensor.shape) != wanted:
            has, needs = ("x".join(map(str, shape)) for shape in (tensor.shape, wanted))
            raise ModelLoadError(
                f"{what} does not fit: its `lora_{half}` for `{name}` is {has}, and must be {needs}",
                hint=hint,
            )


def _size(module: nn.Module) -> tuple[int, int] | None:
    """How wide the input and the output of a layer are; None if it is not linear."""
    for names in (("in_features", "out_features"), ("nx", "nf"), ("num_embeddings", "embedding_dim")):
        wide, high = (getattr(module, name, None) for name in names)
        if isinstance(wide, int) and isinstance(high, int):
            return wide, high
    return None


def _warn_of_another_base(model: Any, config: Config, what: str) -> None:
    """Say so if both names can be told; it may still be the same weights under another name."""
    path = str(getattr(getattr(model, "config", None), "_name_or_path", ""))
    cached = re.search(r"models--([^/]+)--([^/]+)/snapshots/", path)
    trained = config.base_model_name_or_path or ""
    if cached is None or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", trained) is None:
        return
    loaded = "/".join(cached.groups())
    if loaded.lower() != trained.lower():
        log.warning("%s was trained for `%s`, and the model is `%s`", what, trained, loaded)
