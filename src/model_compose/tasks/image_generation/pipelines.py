"""How does a folder become a pipeline of diffusers that is ready to paint?

The parts are loaded here one by one, and not by the pipeline: so weights that are missing are an error and
not random numbers, only safetensors are read, and only the parts that its index names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import nn

from model_compose.config.spec import fields_of
from model_compose.drivers.contract import LoadOptions, LoadProgress, Quantization
from model_compose.drivers.huggingface import quantize
from model_compose.drivers.huggingface.load import LOADING, choose_device, choose_dtype
from model_compose.drivers.huggingface.memory import out_of_memory
from model_compose.errors import DriverMissing, ModelLoadError, first_line
from model_compose.tasks.image_generation.families import Family, Index, read_index

#: Called after each step with the number of steps that are done, and of all.
Stepped = Callable[[int, int], None]
#: float32 [rows, height, width, 3], from 0 to 1
Painted = NDArray[np.float32]

_WEIGHTS: Final = "weights"
#: What the configuration of transformers and that of diffusers have in common.
_BITSANDBYTES: Final = (
    *("load_in_8bit", "load_in_4bit", "llm_int8_threshold"),
    *("bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "bnb_4bit_use_double_quant"),
)
_LOADING: Final = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, TypeError)


class DiffusionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The driver's own settings that concern a pipeline; they are fields of its options struct."""

    cpu_offload: Annotated[bool, msgspec.Meta(description="parts wait in RAM for their turn on the GPU")] = (
        False
    )
    vae_tiling: bool = False
    vae_slicing: bool = False


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of a pipeline paints: a row for each prompt, and what all rows share."""

    prompts: list[str]
    negative: list[str] | None
    seeds: list[int]
    width: int
    height: int
    steps: int
    guidance: float | None
    max_sequence_length: int | None


class Pipeline:
    """A loaded pipeline.

    family    what it takes, as this model is
    pipe      the object of diffusers
    multiple  what width and height must be multiples of
    details   shown by `ps`
    """

    def __init__(
        self, pipe: Any, family: Family, device: torch.device, dtype: torch.dtype, details: dict[str, str]
    ) -> None:
        self.pipe = pipe
        self.family = family.of_model(getattr(pipe, family.denoiser).config)
        self.device = device
        self.details = details
        self.multiple = family.multiple(pipe.vae_scale_factor)
        self.dtype = dtype
        tokenizer = pipe.tokenizer_2 or pipe.tokenizer
        self._most_tokens = (pipe.tokenizer_2 and family.tokens) or int(tokenizer.model_max_length)
        # That of the pipeline is used by another thread, which changes it.
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def excess(self, text: str, max_sequence_length: int | None) -> tuple[int, int] | None:
        """How many tokens a text has and how many are read, if that is less."""
        size = len(self._tokenizer.encode(text).ids)
        most = max_sequence_length or self._most_tokens
        return (size, most) if size > most else None

    def paint(self, what: Prompts, stepped: Stepped) -> Painted:
        """Call the pipeline once. Whatever `stepped` raises ends it."""

        def after_step(pipe: Any, i: int, _: Any, kept: dict[str, Any]) -> dict[str, Any]:
            stepped(i + 1, pipe.num_timesteps)
            return kept

        given: dict[str, Any] = {
            "prompt": what.prompts,
            "width": what.width,
            "height": what.height,
            "num_inference_steps": what.steps,
            # Numbers of chance come from the CPU, so a seed means the same on every device.
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in what.seeds],
            "callback_on_step_end": after_step,
            "output_type": "np",
            **self.family.extra,
        }
        given |= {"guidance_scale": what.guidance} if what.guidance is not None else {}
        given |= {"negative_prompt": what.negative} if what.negative is not None else {}
        if what.max_sequence_length is not None:
            given["max_sequence_length"] = what.max_sequence_length
        try:
            painted: Painted = self.pipe(**given).images
        except BaseException:
            self._tidy()
            raise
        return painted

    def _tidy(self) -> None:
        """Put back what a pipeline that ended early leaves: parts on the GPU, a VAE in another format."""
        self.pipe.maybe_free_model_hooks()
        if self.pipe.vae.dtype != self.dtype:
            self.pipe.vae.to(dtype=self.dtype)


def load_pipeline(options: LoadOptions, progress: LoadProgress) -> Pipeline:
    """Load a pipeline onto its device. Raises ModelLoadError, DriverMissing."""
    assert options.source is not None
    origin, folder = options.source.origin, Path(options.source.path)
    index = read_index(folder, options.architecture, origin)
    own = _own(options)
    device = choose_device(options.device)
    _require_possible(options, own, index.family, device)
    dtype = choose_dtype(options.precision, device, _stored(folder / index.family.denoiser))
    with LOADING:
        pipe = _load(folder, index, dtype, options, device, progress)
    pipe.set_progress_bar_config(disable=True)
    from model_compose.drivers.huggingface.noise import draw_in_float32  # imports diffusers, which is there

    draw_in_float32(pipe)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    details = {"architecture": index.family.name, "precision": str(dtype).removeprefix("torch.")}
    if not own.cpu_offload:
        pipe.to(device)
    if options.quantization is not None:
        denoiser = getattr(pipe, index.family.denoiser)
        how = quantize.after_loading(denoiser, options.quantization, device)
        size = quantize.quantized_bytes(denoiser) / 1e6
        details["quantization"] = f"{index.family.denoiser}: {how}; weights {size:.0f} MB"
    if own.vae_tiling:
        pipe.vae.enable_tiling()
    if own.vae_slicing:
        pipe.vae.enable_slicing()
    details["device"] = f"{device}, parts take turns" if own.cpu_offload else str(device)
    return Pipeline(pipe, index.family, device, dtype, details)


def offload(options: LoadOptions, pipeline: Pipeline) -> None:
    """Let the parts take turns on the GPU, if the file says so; the last thing before it is used."""
    if _own(options).cpu_offload:
        pipeline.pipe.enable_model_cpu_offload(device=pipeline.device)


def _own(options: LoadOptions) -> DiffusionOptions:
    """The settings that are for us. Raises ModelLoadError for others: they would change nothing."""
    known = {field.name for field in fields_of(DiffusionOptions)} | {"max_image_pixels"}
    for name, value in options.options.items():
        if name not in known and value not in (None, False, "auto"):
            raise ModelLoadError(f"`options.{name}` does not go with image-generation", hint="leave it out")
    return msgspec.convert(options.options, DiffusionOptions)


def _require_possible(
    options: LoadOptions, own: DiffusionOptions, family: Family, device: torch.device
) -> None:
    """Refuse what would not work, or would be ignored. Raises ModelLoadError."""
    if own.cpu_offload and device.type == "cpu":
        raise ModelLoadError("`cpu_offload` is for a GPU, and the device is the CPU", hint="leave it out")
    if options.device_mode == "auto" and device.type == "cuda" and torch.cuda.device_count() > 1:
        raise ModelLoadError(
            "an image model is not spread over several GPUs",
            hint="leave `device_mode` out, and choose one with `device`; `cpu_offload` needs less of it",
        )
    if options.max_seq_length is not None:
        raise ModelLoadError("`max_seq_length` does not go with image-generation", hint="leave it out")
    if not options.fast_tokenizer:
        raise ModelLoadError("image-generation has fast tokenizers only", hint="leave `fast_tokenizer` out")
    if options.adapters and not family.adapters:
        raise ModelLoadError(
            f"diffusers cannot add LoRA adapters to `{family.name}`", hint="leave `peft_adapters` out"
        )
    if options.quantization is not None:
        _require_quantization(options.quantization, device, adapters=bool(options.adapters))


def _require_quantization(quantization: Quantization, device: torch.device, *, adapters: bool) -> None:
    ours = quantization.type == "int4" or (quantization.type == "int8" and device.type == "cpu")
    if not ours and device.type == "cpu":
        raise ModelLoadError(
            f"`{quantization.type}` of an image model needs a GPU", hint="choose `int8` or `int4` on a CPU"
        )
    if ours and adapters:
        raise ModelLoadError(
            f"`peft_adapters` do not go with `{quantization.type}` on `{device}`",
            hint="leave one of them out; on a GPU, `nf4` takes adapters",
        )


def _load(
    folder: Path,
    index: Index,
    dtype: torch.dtype,
    options: LoadOptions,
    device: torch.device,
    progress: LoadProgress,
) -> Any:
    """The pipeline with all its parts, in RAM."""
    assert options.source is not None
    origin = options.source.origin
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise DriverMissing(f"`diffusers` cannot be imported: {error}") from error
    diffusers.utils.logging.set_verbosity_error()  # what it would warn of is an error here, or meant
    for library_of_parts in (diffusers, transformers):
        library_of_parts.utils.logging.disable_progress_bar()  # bars are not for a log
    parts: dict[str, Any] = {}
    for done, (name, (library, kind)) in enumerate(index.parts.items()):
        progress(_WEIGHTS, done, len(index.parts))
        part_class = _class(library, kind, origin)
        if issubclass(part_class, nn.Module):
            more = _quantized(options.quantization, device, dtype) if name == index.family.denoiser else {}
            parts[name] = _part(folder / name, part_class, dtype, more, origin)
    try:
        pipeline_class = getattr(diffusers, index.family.pipeline)
        pipe = pipeline_class.from_pretrained(
            str(folder), **parts, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except _LOADING as error:
        raise out_of_memory(error) or ModelLoadError(
            f"diffusers cannot load `{origin}`: {first_line(error)}"
        ) from error
    progress(_WEIGHTS, len(index.parts), len(index.parts))
    return pipe


def _class(library: str, kind: str, origin: str) -> type:
    """The class of a part. Raises ModelLoadError."""
    module = {"stable_diffusion": "diffusers.pipelines.stable_diffusion"}.get(library, library)
    found = getattr(importlib.import_module(module), kind, None)
    if not isinstance(found, type):
        raise ModelLoadError(
            f"`{origin}` needs `{kind}` of {library}, which the installed version does not have"
        )
    return found


def _part(path: Path, part_class: Any, dtype: torch.dtype, more: Mapping[str, Any], origin: str) -> Any:
    """One part with weights. Raises ModelLoadError when some are missing."""
    given: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, **more}
    try:
        variant = _variant(path)
        part, told = part_class.from_pretrained(
            str(path), output_loading_info=True, **({"variant": variant} if variant else {}), **given
        )
    except _LOADING as error:
        raise out_of_memory(error) or ModelLoadError(
            f"the `{path.name}` of `{origin}` cannot be loaded: {first_line(error)}"
        ) from error
    missing = sorted(told.get("missing_keys", ()))
    if missing:
        shown = ", ".join(f"`{name}`" for name in missing[:3])
        more_of_them = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelLoadError(f"the `{path.name}` of `{origin}` has no weights for {shown}{more_of_them}")
    return part


def _quantized(quantization: Quantization | None, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What a denoiser is loaded with to be quantized on the way, in diffusers' own words."""
    given = quantize.while_loading(quantization, device, dtype) if quantization is not None else {}
    if not given:
        return {}
    import diffusers

    told = given["quantization_config"]
    config: Any = diffusers.BitsAndBytesConfig
    how = config(**{name: getattr(told, name) for name in _BITSANDBYTES})
    return {"quantization_config": how, "device_map": {"": device}}


def _variant(path: Path) -> str | None:
    """`fp16` where there are only weights of that name."""
    names = [file.name for file in path.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def _stored(path: Path) -> Any:
    """The number format of the weights, in the form that `choose_dtype` looks for."""
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                kinds = {opened.get_slice(name).get_dtype() for name in _few(opened.keys())}
        except (SafetensorError, OSError):
            break  # whoever loads it says what is wrong
        return SimpleNamespace(dtype=torch.bfloat16 if kinds == {"BF16"} else torch.float32)
    return None


def _few(names: Sequence[str]) -> list[str]:
    return list(names)[:4]
