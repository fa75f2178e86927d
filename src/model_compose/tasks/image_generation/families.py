"""What differs between the families of diffusion models, and which one is in a folder? Light: no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from model_compose.errors import ModelLoadError

INDEX: Final = "model_index.json"
#: Where the parts of a pipeline may come from; anything else would be code that somebody else wrote.
_LIBRARIES: Final = frozenset({"diffusers", "transformers", "stable_diffusion"})


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of model, and what it takes.

    pipeline   the class of diffusers
    denoiser   the part that computes the steps
    latents    pixels of the image at a side of what the denoiser computes, besides those of the VAE
    least      what a side must be a multiple of, whatever the VAE
    steps      how many, where a request does not say
    guidance   its scale, where a request does not say; None: it has none
    tokens     most tokens of a prompt that its second encoder reads; None: what a request says, or the
               tokenizer's own limit where requests cannot. The first reads no more, and says less.
    max_sequence_length  the default and the most of that, None where there is no choice
    negative   it can be told what not to show
    adapters   diffusers can add LoRA to it
    extra      what its pipeline is always called with
    """

    name: str
    pipeline: str
    denoiser: str
    latents: int = 1
    least: int = 1
    steps: int
    guidance: float | None
    tokens: int | None = None
    max_sequence_length: tuple[int, int] | None = None
    negative: bool = True
    adapters: bool = True
    extra: Mapping[str, Any] = {}

    def of_model(self, config: Mapping[str, Any]) -> Family:
        """The family as this model is: Flux that was distilled to few steps (`schnell`) has no guidance."""
        if self.name == "flux" and not config.get("guidance_embeds", False):
            return replace(self, steps=4, guidance=None, max_sequence_length=(256, 512))
        return self

    def multiple(self, vae_scale: int) -> int:
        """What width and height must be multiples of."""
        side = self.latents * vae_scale
        return side if side % self.least == 0 else side * self.least


FAMILIES: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        Family(
            name="flux",
            pipeline="FluxPipeline",
            denoiser="transformer",
            latents=2,
            steps=28,
            guidance=3.5,
            max_sequence_length=(512, 512),
            negative=False,
        ),
        Family(
            name="sdxl",
            pipeline="StableDiffusionXLPipeline",
            denoiser="unet",
            least=8,
            steps=30,
            guidance=7.5,
        ),
        Family(
            name="hunyuan",
            pipeline="HunyuanDiTPipeline",
            denoiser="transformer",
            latents=2,
            least=16,
            steps=50,
            guidance=5.0,
            tokens=256,
            adapters=False,
            extra={"use_resolution_binning": False},
        ),
    )
}


class Index(msgspec.Struct, frozen=True):
    """What a pipeline consists of: its family, and the library and class of each part."""

    family: Family
    parts: Mapping[str, tuple[str, str]]


def read_index(path: Path, wanted: str | None, origin: str) -> Index:
    """Read what is in the folder of a pipeline. Raises ModelLoadError.

    wanted  the family that a file names; None and `auto`: whichever it is
    """
    try:
        told = json.loads((path / INDEX).read_bytes())
        name, parts = told["_class_name"], dict(_parts(told))
    except OSError:
        raise ModelLoadError(
            f"`{origin}` is not the folder of a diffusers pipeline: it has no `{INDEX}`",
            hint="a pipeline is a folder; one file that holds everything is not loaded",
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelLoadError(f"the `{INDEX}` of `{origin}` cannot be read: {error}") from error
    found = next((family for family in FAMILIES.values() if family.pipeline == name), None)
    if found is None:
        known = ", ".join(f"`{family.pipeline}` ({family.name})" for family in FAMILIES.values())
        raise ModelLoadError(f"`{origin}` is a `{name}`, which is not supported", hint=f"supported: {known}")
    if wanted not in (None, "auto", found.name):
        raise ModelLoadError(
            f"`{origin}` is of family `{found.name}`, and the file says `{wanted}`",
            hint=f"write `architecture: {found.name}`, or leave it out",
        )
    _require_known_libraries(parts, origin)
    return Index(found, parts)


def _parts(told: Mapping[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    """The parts that are there: an optional one may be a pair of nulls."""
    pairs = [(name, value) for name, value in told.items() if isinstance(value, list) and len(value) == 2]
    return [(name, (str(pair[0]), str(pair[1]))) for name, pair in pairs if pair[0] is not None]


def _require_known_libraries(parts: Mapping[str, tuple[str, str]], origin: str) -> None:
    for name, (library, kind) in parts.items():
        if library not in _LIBRARIES:
            raise ModelLoadError(
                f"the `{name}` of `{origin}` is a `{kind}` of `{library}`, and only parts that "
                "diffusers and transformers bring are loaded"
            )
