"""What can `driver: huggingface` do? Light: nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from model_compose.config.spec import DriverSpec, Positive, Report, doc
from model_compose.drivers.diffusion import DiffusionOptions
from model_compose.sources.spec import HubSource, parse_source

_COMMIT_LENGTH = 40

#: Parameters of tasks that generate text which this driver does not have.
GENERATION_REFUSES: Final[Mapping[str, str]] = {
    "response_format": "transformers has no constrained decoding: use a GGUF file with driver `llamacpp`",
}


PromptBatch = Annotated[
    int, doc("generation: prompt tokens computed at once, between two tokens of those that run", ge=16)
]
CacheMib = Annotated[
    Positive | None,
    doc("generation: memory for keys and values, in MiB; unset: 1024, or half of the weights if more"),
]
ChatTemplate = Annotated[
    str | None, doc("a Jinja template instead of the tokenizer's own; rendered in a sandbox")
]


class HuggingFaceOptions(DiffusionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the transformers library and of our batching around it."""

    attention: Annotated[
        Literal["auto", "sdpa", "eager"],
        doc("implementation of attention; `auto` is the library's own choice"),
    ] = "auto"
    prompt_batch: PromptBatch = 512
    cache_mib: CacheMib = None
    max_batch_tokens: Annotated[
        Positive | None,
        doc("embedding and classification: most tokens in one forward pass, padding included"),
    ] = None
    max_image_pixels: Annotated[
        Positive | None,
        doc("image-to-text: most pixels of an image, before it is decoded; unset: 64 million"),
    ] = None
    chat_template: ChatTemplate = None
    trust_remote_code: Annotated[
        bool,
        doc("run Python code that comes with the weights; needs `model.revision` to be a commit, in full"),
    ] = False


def _check(config: Any, options: Any, report: Report) -> None:
    """Code from the hub runs only at the commit that somebody has looked at."""
    if not options.trust_remote_code or config.model is None:
        return
    source = parse_source(config.model) if isinstance(config.model, str) else config.model
    if isinstance(source, HubSource) and not _is_commit(source.revision):
        report.error(
            "`trust_remote_code` needs `model.revision` to be a commit",
            "options",
            "trust_remote_code",
            hint="write `model:` as a map with `repository` and the 40 characters of a commit in `revision`",
        )


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == _COMMIT_LENGTH and not revision.strip("0123456789abcdef")


SPEC = DriverSpec(
    name="huggingface",
    summary="transformers in a worker process, batched across callers; runs most of what the Hub has.",
    options=HuggingFaceOptions,
    extra="huggingface",
    modules=("torch", "transformers", "accelerate"),
    reads=("safetensors", "pytorch", "gguf"),
    estimate="model_compose.drivers.huggingface.size:estimate",
    merge="model_compose.drivers.huggingface.merge:merge",
    check=_check,
)
