"""What task do weights do, where the file does not say?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from model_compose.compose.catalog import BuiltIn
from model_compose.errors import ModelLoadError
from model_compose.sources.fetch import locate, resolve
from model_compose.sources.progress import Progress
from model_compose.sources.spec import Source, format_of_name

#: By the end of the name of the class that a configuration says the weights are for.
_TASKS: Final = (
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForConditionalGeneration", "text-generation"),
    ("ForSequenceClassification", "text-classification"),
    ("Model", "text-embedding"),
)
#: Classes that describe images, whatever their names end with.
_CAPTIONERS: Final = frozenset(
    {"BlipForConditionalGeneration", "GitForCausalLM", "VisionEncoderDecoderModel"}
)


class WithWeights(BuiltIn):
    """A catalog that looks at weights for the task that a file leaves out.

    folder    where relative paths of the file start
    progress  weights that are not here are downloaded; None: they are not, and their task stays unknown
    """

    def __init__(self, folder: Path, progress: Callable[[], Progress] | None) -> None:
        self._folder = folder
        self._progress = progress

    def infer_task(self, source: Source) -> str | None:
        """The task that the weights' configuration tells; None if nobody may look."""
        if self._progress is None:
            loaded = locate(source, base_dir=self._folder)
        else:
            loaded = resolve(source, base_dir=self._folder, progress=self._progress())
        return None if loaded is None else told_task(Path(loaded.path))


def told_task(path: Path) -> str:
    """The task of weights on this machine. Raises ModelLoadError when nothing tells it."""
    if format_of_name(path.name) == "gguf":
        from model_compose.drivers.llamacpp import gguf

        return "text-embedding" if gguf.read(path).embeds else "text-generation"
    folder = path.parent if path.is_file() else path
    if (folder / "modules.json").is_file():
        return "text-embedding"
    config = _config(folder / "config.json")
    for name in config.get("architectures") or ():
        if name in _CAPTIONERS:
            return "image-to-text"
        for end, task in _TASKS:
            if str(name).endswith(end) and "vision_config" not in config:
                return task
    raise ModelLoadError(f"the configuration of `{path}` does not tell its task")


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
