"""Which network do the weights in a file belong to?

Files are read as safetensors, or by torch with `weights_only`, which runs nothing that stands in them;
spandrel gets names and numbers only, and tells the network by the names.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import torch

from model_compose.drivers.contract import LoadOptions
from model_compose.errors import ModelLoadError, first_line
from model_compose.tasks.image_upscale.torchvision_absent import import_spandrel

#: What spandrel calls the networks that each family has.
_FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "real-esrgan": ("ESRGAN", "Compact"),
    "esrgan": ("ESRGAN",),
    "swinir": ("SwinIR",),
}
_ENDINGS: Final = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_COLOURS: Final = 3


def read_network(options: LoadOptions) -> Any:
    """spandrel's `ImageModelDescriptor`, in float32 on the CPU. Raises ModelLoadError, DriverMissing."""
    assert options.source is not None
    spandrel = import_spandrel()
    path = weights_file(Path(options.source.path))
    origin = options.source.origin
    weights = _weights(path, origin)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)  # in spandrel's SwinIR
            found = spandrel.ModelLoader(device="cpu").load_from_state_dict(weights)
    except spandrel.UnsupportedModelError:
        raise ModelLoadError(
            f"`{origin}` holds the weights of no network that spandrel knows", hint=_families_hint()
        ) from None
    except Exception as error:
        raise ModelLoadError(f"spandrel cannot load `{origin}`: {first_line(error)}") from error
    _require_family(options.architecture, found, origin)
    if (found.input_channels, found.output_channels) != (_COLOURS, _COLOURS):
        raise ModelLoadError(
            f"the network in `{origin}` makes {found.output_channels} channels of {found.input_channels}",
            hint="a network for pictures makes 3 colours of 3",
        )
    return found


def weights_file(path: Path) -> Path:
    """The one file of weights that a path means. Raises ModelLoadError."""
    if path.is_file():
        return path
    if (path / "model_index.json").is_file():
        raise ModelLoadError(f"`{path}` is a pipeline of diffusers", hint="write `architecture: ldsr`")
    found = (
        sorted(each for each in path.iterdir() if each.suffix.lower() in _ENDINGS) if path.is_dir() else []
    )
    safe = [each for each in found if each.suffix.lower() == ".safetensors"]
    chosen = safe or found
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise ModelLoadError(
            f"there are no weights in `{path}`", hint=f"files end with {', '.join(_ENDINGS)}"
        )
    names = ", ".join(f"`{each.name}`" for each in chosen)
    raise ModelLoadError(f"there are several files of weights in `{path}`: {names}", hint="name one of them")


def _weights(path: Path, origin: str) -> dict[str, Any]:
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelLoadError(
            f"`{origin}` cannot be read: {first_line(error)}",
            hint="files of weights are safetensors, or what `torch.save` makes of a `state_dict()`; "
            "what would run code when it is read is refused",
        ) from error
    if not isinstance(found, dict) or not found:
        raise ModelLoadError(f"`{origin}` holds a {type(found).__name__}, and no names with weights")
    return found


def _require_family(named: str | None, found: Any, origin: str) -> None:
    """Raise where a network is another than the file says, or one that nobody tried."""
    fitting = [family for family, networks in _FAMILIES.items() if found.architecture.id in networks]
    wanted = named in fitting if named in _FAMILIES else fitting
    if wanted:
        return
    name = found.architecture.name
    hint = f"write `architecture: {fitting[0]}`" if fitting else _families_hint()
    said = f", and not of `{named}`" if named in _FAMILIES else ""
    raise ModelLoadError(f"`{origin}` holds the weights of a network of type `{name}`{said}", hint=hint)


def _families_hint() -> str:
    return "networks of `real-esrgan`, `esrgan` and `swinir` can be loaded"
