"""How does Unsloth load weights?

It changes transformers while it is imported, so it comes before anything that imports that (`begin`). What it
loads is a model of transformers: on a CPU an ordinary one, on a GPU one whose `generate` has kernels of
Unsloth's. Some of what it cannot do it replaces and prints so; here that is an error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model_compose.drivers.contract import LoadOptions, LoadProgress
from model_compose.errors import DriverMissing, ModelLoadError, first_line

if TYPE_CHECKING:
    from model_compose.drivers.huggingface.load import Auto, Loaded
    from model_compose.drivers.huggingface.lora import Blending

log = logging.getLogger(__name__)

_HINT: Final = "`driver: huggingface` runs the same weights"


def begin(options: LoadOptions) -> None:
    """Import Unsloth, before transformers. Blocks, for some 20 s. Raises DriverMissing."""
    os.environ.update(environment(options))
    try:
        import unsloth
    except Exception as error:
        raise DriverMissing(f"Unsloth does not run here: {first_line(error)}", hint=_HINT) from error
    if unsloth.DEVICE_TYPE not in ("cpu", "cuda", "hip"):
        message = f"Unsloth computes on `{unsloth.DEVICE_TYPE}` here, which this driver does not use"
        raise DriverMissing(message, hint=_HINT)
    if unsloth.DEVICE_TYPE == "cpu":
        log.warning("Unsloth found no GPU: it computes on the CPU, slowly; %s faster", _HINT)


def environment(options: LoadOptions) -> dict[str, str]:
    """What Unsloth reads while it is imported."""
    return {
        # The service has fetched the weights, and nobody is to be told of it.
        "HF_HUB_OFFLINE": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        # It writes Python code, and puts the folder of that on the path: not one that others write to.
        "UNSLOTH_COMPILE_LOCATION": str(Path(options.scratch) / f"unsloth-{os.getpid()}"),
        "TQDM_DISABLE": "1",
        **({"UNSLOTH_FORCE_CPU": "1"} if options.device == "cpu" else {}),
    }


class Unsloth:
    """A `Library`: see `tasks/text_generation/huggingface/model.py`."""

    driver = "unsloth"

    def load(self, options: LoadOptions, auto: Auto, progress: LoadProgress, config: Any) -> Loaded:
        """Load weights with FastLanguageModel, for inference. Raises ModelLoadError."""
        from model_compose.drivers.huggingface.load import (
            Bars,
            Files,
            Loaded,
            choose_device,
            choose_dtype,
            context_length,
        )
        from model_compose.drivers.huggingface.memory import out_of_memory

        assert options.source is not None
        origin = options.source.origin
        if auto != "AutoModelForCausalLM":
            raise ModelLoadError(f"Unsloth has no encoder-decoder models, and `{origin}` is one", hint=_HINT)
        files = Files.of(options.source.path)
        if files.name is not None:
            raise ModelLoadError(
                f"Unsloth loads folders, and `{origin}` is a file", hint="name the folder that it lies in"
            )
        import torch
        import unsloth

        device = choose_device(options.device)
        if device.type != unsloth.DEVICE_TYPE_TORCH:
            raise ModelLoadError(
                f"`device` is `{device}`, and Unsloth computes on `{unsloth.DEVICE_TYPE_TORCH}` here",
                hint=f"write `device: {unsloth.DEVICE_TYPE_TORCH}`; {_HINT}",
            )
        if device.type == "cuda":
            torch.cuda.set_device(device)  # some of its kernels take that of the thread
        dtype = choose_dtype(options.precision, device, config)
        written = options.precision not in (None, "auto")
        if dtype == torch.bfloat16 and not written and not unsloth.is_bfloat16_supported():
            dtype = torch.float16
        four_bits = in_four_bits(options, config)
        several = options.device_mode == "auto" and torch.cuda.device_count() > 1
        with Bars(progress), required(origin):
            try:
                model, _ = unsloth.FastLanguageModel.from_pretrained(
                    files.folder,
                    max_seq_length=context_length(config, options),
                    dtype=dtype,
                    load_in_4bit=four_bits,
                    device_map="auto" if several else {"": device},
                    trust_remote_code=False,
                    local_files_only=True,
                    use_exact_model_name=True,
                    use_gradient_checkpointing=False,
                    fix_tokenizer=False,  # ours is used
                    offload_embedding=False,  # it would make room for training, in the memory of the host
                )
            except Exception as error:
                why = first_line(error)
                raise out_of_memory(error, device) or ModelLoadError(
                    f"Unsloth cannot load `{origin}`: {why}", hint=_HINT
                ) from error
        require_same(model, files.folder, origin)
        small = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
        if four_bits and not small:
            raise ModelLoadError(f"Unsloth does not compute `{origin}` in 4 bits here", hint=_HINT)
        computes = model.dtype if not four_bits else small[0].compute_dtype
        if computes != dtype and written:
            raise ModelLoadError(
                f"Unsloth computes `{origin}` in `{str(computes).removeprefix('torch.')}` here",
                hint=f"leave `precision` out, or write that; {_HINT}",
            )
        elsewhere = {str(each.device) for each in model.parameters() if each.device.type != device.type}
        if elsewhere:
            raise ModelLoadError(
                f"`{origin}` does not fit on `{device}`: a part of it is on {', '.join(sorted(elsewhere))}",
                hint="choose weights of 4 bits, or a smaller model",
            )
        unsloth.FastLanguageModel.for_inference(model)
        model.eval().requires_grad_(False)
        details = {
            "architecture": type(model).__name__,
            "device": ", ".join(sorted({str(parameter.device) for parameter in model.parameters()})),
            "precision": str(computes).removeprefix("torch."),
            "engine": f"Unsloth {importlib.metadata.version('unsloth')}",
        }
        if four_bits:
            details["quantization"] = f"{small[0].weight.quant_type} (bitsandbytes), {len(small)} layers"
        return Loaded(model, device, model.dtype, details)

    def attach(self, loaded: Loaded, options: LoadOptions) -> Blending | None:
        """As layers of peft, which Unsloth's kernels know."""
        if not options.adapters:
            return None
        from model_compose.drivers.unsloth.blends import Blends

        return Blends(loaded.model, options.adapters, Path(options.scratch) / f"blends-{os.getpid()}")

    def shares(self, loaded: Loaded, options: LoadOptions) -> bool:
        """On a CPU, where the model is transformers' own, and while no adapter is in it.

        Its kernels for GPUs keep keys and values in places of their own, and peft has one adapter at a time.
        """
        shares = loaded.device.type == "cpu" and not options.adapters
        idle = sorted(options.options.keys() & {"prompt_batch", "cache_mib"})
        idle += ["batch_size"] if options.batch_size is not None else []
        if idle and not shares:
            log.warning("requests are computed one after the other, so `%s` does nothing", "`, `".join(idle))
        return shares


def in_four_bits(options: LoadOptions, config: Any) -> bool:
    """Whether weights have 4 bits, because their files have, or because that is asked for.

    Raises ModelLoadError for weights of another kind, and for what is asked for twice.
    """
    assert options.source is not None
    origin = options.source.origin
    own = getattr(config, "quantization_config", None)
    own = own if isinstance(own, dict) or own is None else own.to_dict()
    if own is not None and options.quantization is not None:
        raise ModelLoadError(
            f"the weights of `{origin}` are quantized already", hint="leave `quantization` out"
        )
    if own is not None and not own.get("load_in_4bit"):
        method = own.get("quant_method", "another method")
        raise ModelLoadError(
            f"`{origin}` is quantized by `{method}`, and Unsloth reads what bitsandbytes made of 4 bits",
            hint=f"driver `vllm` reads AWQ and GPTQ; {_HINT}",
        )
    return own is not None or options.quantization is not None


def require_same(model: Any, folder: str, origin: str) -> None:
    """Raise ModelLoadError where it exchanged weights for others, which it does by their names."""
    loaded = str(getattr(model.config, "_name_or_path", folder))
    if Path(loaded) != Path(folder):
        raise ModelLoadError(
            f"Unsloth loads `{loaded}` in the place of `{origin}`",
            hint="rename the folder: Unsloth takes names that end in `-bnb-4bit` for those of 4-bit weights",
        )


@contextmanager
def required(origin: str) -> Iterator[None]:
    """Raise ModelLoadError if weights are missing of what is loaded within: transformers only prints that."""
    library: Any = importlib.import_module("transformers.modeling_utils")

    from model_compose.drivers.huggingface.load import require_all

    told: list[dict[str, Any]] = []
    report = library.log_state_dict_report

    def keep(*args: Any, **kwargs: Any) -> None:
        told.append(kwargs["loading_info"].to_dict())
        report(*args, **kwargs)

    library.log_state_dict_report = keep
    try:
        yield
    finally:
        library.log_state_dict_report = report
    for each in told:
        require_all(each, origin, "AutoModelForCausalLM")
    if not told:
        log.warning("Unsloth loaded `%s` without saying whether all of its weights are there", origin)
