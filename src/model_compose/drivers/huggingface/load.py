"""How do weights become a model and a tokenizer, on the device and in the number format asked for?"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Sized
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from model_compose.drivers.contract import LoadOptions, LoadProgress
from model_compose.drivers.huggingface.spec import HuggingFaceOptions
from model_compose.errors import DriverMissing, ModelLoadError, first_line
from model_compose.sources.spec import format_of_name

if TYPE_CHECKING:
    import torch

Auto = Literal[
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTextEncoding",
]

#: Where a configuration does not say what a model was trained for.
DEFAULT_CONTEXT: Final = 2048

#: Held while a library loads: it changes meanwhile what all of a process sees, and embedded models share one.
LOADING: Final = threading.Lock()

_WEIGHTS: Final = "weights"
#: Files of whole weights, by the names that the library looks for.
_WHOLE: Final = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
#: Giving pages back may take a fifth of a load's time, and no more.
_RELEASING_COSTS: Final = 4


class Files(msgspec.Struct, frozen=True):
    """A folder with a configuration, and the one file of weights to take from it, if one is named."""

    folder: str
    name: str | None

    @classmethod
    def of(cls, path: str) -> Files:
        """The files of a source's path."""
        where = Path(path)
        return cls(str(where.parent), where.name) if where.is_file() else cls(str(where), None)

    @property
    def gguf(self) -> str | None:
        """The GGUF file among them, which brings its own configuration and tokenizer."""
        if self.name is not None:
            return self.name if format_of_name(self.name) == "gguf" else None
        found = sorted(path.name for path in Path(self.folder).glob("*.gguf"))
        alone = len(found) == 1 and not (Path(self.folder) / "config.json").is_file()
        return found[0] if alone else None


class Loaded:
    """A loaded model.

    device   where its inputs go; a model that is spread over several takes them on its first
    dtype    what it computes in
    details  shown by `ps`
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype, details: dict[str, str]) -> None:
        self.model = model
        self.config = model.config
        self.device = device
        self.dtype = dtype
        self.details = details


def driver_options(options: LoadOptions) -> HuggingFaceOptions:
    """The driver's own settings."""
    return msgspec.convert(options.options, HuggingFaceOptions)


def read_config(options: LoadOptions) -> Any:
    """The model's configuration. Raises ModelLoadError, DriverMissing."""
    assert options.source is not None
    files = Files.of(options.source.path)
    trust = driver_options(options).trust_remote_code
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars are not for a log
    try:
        from transformers import AutoConfig

        import model_compose.drivers.huggingface.lean  # noqa: F401
    except ImportError as error:
        raise DriverMissing(f"`transformers` cannot be imported: {error}") from error
    if files.gguf is None:
        _refuse_adapter(Path(files.folder), options.source.origin)
        _refuse_remote_code(Path(files.folder), trust)
    named = {} if files.gguf is None else {"gguf_file": files.gguf}
    try:
        config = AutoConfig.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=trust, **named
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(
            f"`{options.source.origin}` has no configuration that transformers knows: {first_line(error)}",
            hint="the folder of a model holds a `config.json` beside its weights",
        ) from error
    if files.name is not None and format_of_name(files.name) == "safetensors":
        config.transformers_weights = files.name
    return config


def load(options: LoadOptions, auto: Auto, progress: LoadProgress, config: Any = None) -> Loaded:
    """Load the weights with one of transformers' automatic classes, in evaluation mode.

    Raises ModelLoadError when they do not fit the task, DriverMissing.
    """
    import torch
    import transformers

    assert options.source is not None
    files = Files.of(options.source.path)
    config = config if config is not None else read_config(options)
    own = driver_options(options)
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device, config)
    spread = options.device_mode == "auto" and device.type == "cuda" and torch.cuda.device_count() > 1
    given: dict[str, Any] = {
        "dtype": dtype,
        "config": config,
        "local_files_only": True,
        "trust_remote_code": own.trust_remote_code,
        "output_loading_info": True,
        "device_map": "auto" if spread else {"": device},
    }
    if files.gguf is not None:
        given["gguf_file"] = files.gguf
    elif files.name is not None and format_of_name(files.name) == "pytorch":
        _require_standard(files.name, options.source.origin)
        given["use_safetensors"] = False  # where both are there, it takes those otherwise
    if own.attention != "auto":
        given["attn_implementation"] = own.attention
    if options.quantization is not None:
        from model_compose.drivers.huggingface import quantize

        given |= quantize.while_loading(options.quantization, device, dtype)
    release = _releasing(files.folder) if options.low_cpu_mem_usage else lambda: None
    with LOADING, Bars(progress, release):
        try:
            model, told = getattr(transformers, auto).from_pretrained(files.folder, **given)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            from model_compose.drivers.huggingface.memory import out_of_memory

            raise out_of_memory(error, device) or ModelLoadError(
                f"transformers cannot load `{options.source.origin}`: {first_line(error)}"
            ) from error
    require_all(told, options.source.origin, auto)
    model.eval().requires_grad_(False)
    release()
    details = {"architecture": type(model).__name__, "device": _named(device, model, spread)}
    details["precision"] = str(dtype).removeprefix("torch.")
    if options.quantization is not None:
        from model_compose.drivers.huggingface import quantize

        how = quantize.after_loading(model, options.quantization, device, release)
        details["quantization"] = f"{how}; weights {quantize.quantized_bytes(model) / 1e6:.0f} MB"
    return Loaded(model, device, dtype, details)


def load_tokenizer(options: LoadOptions, config: Any) -> Any:
    """The tokenizer that lies with the weights. Raises ModelLoadError."""
    from transformers import AutoTokenizer

    assert options.source is not None
    files = Files.of(options.source.path)
    named = {} if files.gguf is None else {"gguf_file": files.gguf}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            files.folder,
            config=config,
            local_files_only=True,
            use_fast=options.fast_tokenizer,
            trust_remote_code=driver_options(options).trust_remote_code,
            **named,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelLoadError(
            f"`{options.source.origin}` has no tokenizer that transformers can load: {first_line(error)}"
        ) from error
    if not options.fast_tokenizer and tokenizer.is_fast:
        raise ModelLoadError(
            f"`{options.source.origin}` has only a fast tokenizer", hint="leave `fast_tokenizer` out"
        )
    return tokenizer


def load_image_processor(options: LoadOptions, config: Any) -> Any:
    """What scales images for the model, from the file beside the weights. Raises ModelLoadError.

    It is always the one of Pillow: that of torchvision gives other pixels, and is not everywhere.
    """
    from transformers import AutoImageProcessor

    assert options.source is not None
    files = Files.of(options.source.path)
    try:
        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            files.folder,
            config=config,
            backend="pil",
            local_files_only=True,
            trust_remote_code=driver_options(options).trust_remote_code,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelLoadError(
            f"`{options.source.origin}` does not tell how images are scaled for it: {first_line(error)}",
            hint="the folder of a model that sees holds a `preprocessor_config.json` beside its weights",
        ) from error


def _require_standard(name: str, origin: str) -> None:
    """Raise ModelLoadError where a file of PyTorch weights has no name that transformers looks for."""
    if not name.startswith("pytorch_model"):
        raise ModelLoadError(
            f"transformers does not load `{name}` of `{origin}`",
            hint="call it `pytorch_model.bin`, or save it as a safetensors file, which may have any name",
        )


def choose_device(name: str) -> torch.device:
    """The device that `device:` means. Raises ModelLoadError naming what exists."""
    import torch

    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device(found[0] if found else "mps" if mps else "cpu")
    exists = {"cpu": True, "mps": mps, "cuda": bool(found)}.get(name, name in found)
    if not exists:
        there = ", ".join(f"`{each}`" for each in ["cpu", *found, *(["mps"] if mps else [])])
        raise ModelLoadError(f"there is no device `{name}` here", hint=f"there are: {there}")
    return torch.device("cuda:0" if name == "cuda" else name)


def choose_dtype(precision: str | None, device: torch.device, config: Any) -> torch.dtype:
    """What to compute in: as asked; else float32 on a CPU, and half precision on a GPU."""
    import torch

    if precision not in (None, "auto"):
        chosen = getattr(torch, str(precision))
        assert isinstance(chosen, torch.dtype)
        return chosen
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if getattr(config, "dtype", None) == torch.bfloat16 else torch.float16


def context_length(config: Any, options: LoadOptions) -> int:
    """Tokens of prompt and output that one request may have: what was trained, or less if asked for."""
    text = config.get_text_config()
    trained = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return min(each for each in (trained or DEFAULT_CONTEXT, options.max_seq_length) if each is not None)


def _refuse_adapter(folder: Path, origin: str) -> None:
    """Raise ModelLoadError for what peft saved: the library would fetch its base, whatever that is."""
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return
    files = {path.name for path in folder.iterdir()}
    whole = "config.json" in files and any(_WHOLE.fullmatch(name) for name in files)
    if whole and find_spec("peft") is None:
        return  # there is an adapter beside the weights, which the library does not look at then
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    named = f", `{base}`," if base else ""
    raise ModelLoadError(
        f"`{origin}` is an adapter, and no model",
        hint=f"write its base{named} as `model`, and this in `peft_adapters`",
    )


def _refuse_remote_code(folder: Path, trust: bool) -> None:
    """Say it before the library asks for it on a terminal that is not there."""
    path = folder / "config.json"
    if trust or not path.is_file():
        return
    try:
        asks = "auto_map" in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return  # the library says what is wrong with it
    if asks:
        from transformers import CONFIG_MAPPING

        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
        if kind not in CONFIG_MAPPING:
            raise ModelLoadError(
                f"the model in `{folder}` brings Python code of its own, which is not run",
                hint="if you trust it, pin `model.revision` to a commit and set `options.trust_remote_code`, "
                "which driver `huggingface` has",
            )


def require_all(told: dict[str, Any], origin: str, auto: Auto) -> None:
    """Raise ModelLoadError for weights that are missing: they would be random ones.

    told  what transformers says of a load
    """
    missing = sorted(told.get("missing_keys", ()))
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in told.get("mismatched_keys", ()))
    if auto in (
        "AutoModel",
        "AutoModelForImageTextToText",
        "AutoModelForTextEncoding",
    ):  # heads on top of the encoder, which an embedding and a decoder that looks at images do not use
        missing = [key for key in missing if "pooler" not in key]
    if missing or wrong:
        shown = ", ".join(f"`{name}`" for name in (missing or wrong)[:3])
        more = len(missing or wrong) - 3
        what = "has no weights for" if missing else "has weights of another size for"
        raise ModelLoadError(
            f"`{origin}` {what} {shown}" + (f" and {more} more" if more > 0 else ""),
            hint="it was made for another task: choose weights that were trained for this one",
        )


def _named(device: torch.device, model: Any, spread: bool) -> str:
    """The devices that a model is on, for people."""
    if not spread:
        return str(device)
    return ", ".join(sorted({str(parameter.device) for parameter in model.parameters()}))


def _releasing(folder: str) -> Callable[[], None]:
    """Gives back, again and again, what lies in memory of files of which a part has been read."""
    from model_compose.drivers.huggingface.memory import release_mapped

    # A folder of the hub's cache has links to its files.
    files = {str(path.resolve()) for path in Path(folder).glob("*.safetensors")}
    due = 0.0

    def release() -> None:
        nonlocal due
        began = time.monotonic()
        if began >= due:
            release_mapped(files)
            now = time.monotonic()
            due = now + _RELEASING_COSTS * (now - began)

    return release


class Bars:
    """Turns the library's progress bars into ours while weights are loaded."""

    def __init__(self, progress: LoadProgress, release: Callable[[], None] = lambda: None) -> None:
        self._progress = progress
        self._release = release

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._old = getattr(logging, "set_tqdm_hook", lambda hook: None)(self._bar)

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        getattr(logging, "set_tqdm_hook", lambda hook: None)(self._old)

    def _bar(self, factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items = args[0] if args else kwargs.get("iterable")
        total = kwargs.get("total") or (len(items) if isinstance(items, Sized) else 0)
        return _Bar(items, total, self._told)

    def _told(self, stage: str, done: int, total: int) -> None:
        self._release()
        self._progress(stage, done, total)


class _Bar:
    """What the library takes for a bar of tqdm."""

    def __init__(self, items: Any, total: int, progress: LoadProgress) -> None:
        self._items = items
        self._total = total
        self._done = 0
        self._progress = progress

    def __iter__(self) -> Any:
        for item in self._items:
            yield item
            self.update()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """So much more is done."""
        before, self._done = self._done, self._done + n
        step = max(1, self._total // 50)
        if before // step != self._done // step or self._done == self._total:
            self._progress(_WEIGHTS, self._done, self._total)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None
