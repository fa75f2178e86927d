"""Where is a file or folder that the YAML file names by its path?"""

from __future__ import annotations

from pathlib import Path

from model_compose.errors import SourceNotFound, did_you_mean
from model_compose.sources.spec import Format, LoadedSource, LocalSource, format_of, format_of_name

# Where a folder holds several formats, the one that drivers prefer.
_PREFERRED: tuple[Format, ...] = ("safetensors", "pytorch", "onnx", "gguf", "tensorrt")


def locate(source: LocalSource, base_dir: Path) -> LoadedSource:
    """The file or folder. Raises SourceNotFound, with what lies next to it."""
    path = absolute(source.path, base_dir)
    if not path.exists():
        raise _missing(path)
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    return LoadedSource(
        path=str(path),
        format=format_of(source) or _format_of_folder(files),
        revision=None,
        origin=source.path,
        size_bytes=sum(file.stat().st_size for file in files),
    )


def absolute(path: str, base_dir: Path) -> Path:
    """A path of the YAML file: `~` is the home folder, a relative one starts at `base_dir`.

    Raises SourceNotFound when it starts at a home that nobody has.
    """
    try:
        return (base_dir / Path(path).expanduser()).absolute()
    except RuntimeError:
        raise SourceNotFound(
            f"there is no home folder for `{path}`",
            hint="write the whole path; where the name begins with `~`, write `./~...`",
        ) from None


def _format_of_folder(files: list[Path]) -> Format | None:
    found = {format_of_name(file.name) for file in files}
    return next((each for each in _PREFERRED if each in found), None)


def _missing(path: Path) -> SourceNotFound:
    name, folder = path.name, path.parent
    while not folder.is_dir():
        name, folder = folder.name, folder.parent
    neighbours = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    return SourceNotFound(
        f"there is no file or folder `{path}`: `{folder}` has no `{name}`",
        hint=did_you_mean(name, neighbours) or f"`{folder}` is empty",
    )
