"""What did sentence-transformers write beside a model about how texts become vectors with it?

`modules.json` lists what a text goes through, each with a folder of its own: `Transformer`, `Pooling`, then
perhaps `Dense`, `LayerNorm`, `Normalize`. Prompts stand in `config_sentence_transformers.json`. Where there
is no such file, a model is one that averages its tokens. Without torch: `heads.py` loads the layers.
Source: sentence-transformers 6, `Transformer`, `Pooling`, `Dense`, `Normalize`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from model_compose.errors import InvalidInput, ModelLoadError, did_you_mean
from model_compose.tasks.text_embedding.spec import TextEmbedding

_LIST: Final = "modules.json"
_PACKAGE: Final = "sentence_transformers."
_TRANSFORMER: Final = (
    "sentence_bert_config.json",
    *(f"sentence_{kind}_config.json" for kind in ("roberta", "distilbert", "camembert", "albert")),
    *(f"sentence_{kind}_config.json" for kind in ("xlm-roberta", "xlnet")),
)
#: Older files have a key for each mode; vectors of several stand side by side in this order.
_OLD_MODES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MODES: Final = frozenset(_OLD_MODES.values())
#: What a request may ask for, in the names that sentence-transformers has.
_ASKED: Final = {"mean": "mean", "cls": "cls", "max": "max", "last": "lasttoken"}


class Head(msgspec.Struct, frozen=True):
    """A layer behind the pooling: `Dense`, `LayerNorm` or `Normalize`, with its folder and configuration."""

    kind: str
    folder: Path
    config: dict[str, Any]


class Recipe(msgspec.Struct, frozen=True):
    """How texts become vectors with one model.

    folder          where the weights of the transformer lie
    pooling         one mode or several, whose vectors stand side by side
    skips_prompt    tokens of the prompt do not count
    heads           what the pooled vectors, float [batch, dim], go through
    normalizes      the vectors have length 1 at the end
    """

    folder: Path
    max_seq_length: int | None = None
    lower_case: bool = False
    pooling: tuple[str, ...] = ("mean",)
    skips_prompt: bool = False
    heads: tuple[Head, ...] = ()
    normalizes: bool = True
    prompts: dict[str, str] = {}
    default_prompt: str | None = None

    def prompt(self, name: str | None) -> str:
        """What stands before a text. Raises InvalidInput for a name that the model does not know."""
        if name is None:
            return self.prompts.get(self.default_prompt or "", "")
        if name not in self.prompts:
            known = did_you_mean(name, self.prompts) if self.prompts else "leave `prompt_name` out"
            raise InvalidInput(f"the model has no prompt `{name}`", field="prompt_name", hint=known)
        return self.prompts[name]

    def cased(self, text: str) -> str:
        """A text in small letters, if the model wants that."""
        return text.lower() if self.lower_case else text

    def modes(self, request: TextEmbedding) -> tuple[str, ...]:
        """How the tokens of a text are pooled. Raises InvalidInput for what the layers behind cannot take."""
        if request.pooling is None:
            return self.pooling
        if self.heads and len(self.pooling) > 1:
            own = " + ".join(self.pooling)
            raise InvalidInput(f"the model has layers behind its pooling that need `{own}`", field="pooling")
        return (_ASKED[request.pooling],)


def read(folder: Path, origin: str) -> Recipe:
    """The recipe of the model in a folder. Raises ModelLoadError for one that we cannot follow."""
    modules = _json(folder / _LIST)
    if modules is None:
        return Recipe(folder)
    return _Reader(folder, origin).recipe([(_kind(each, origin), str(each["path"])) for each in modules])


def _kind(module: dict[str, Any], origin: str) -> str:
    """The class of a module, without the package that it is in, which moved between versions."""
    full = str(module["type"])
    if not full.startswith(_PACKAGE):
        raise ModelLoadError(f"`{origin}` needs `{full}`, Python code of its own, which is not run")
    return full.rpartition(".")[2]


class _Reader:
    def __init__(self, folder: Path, origin: str) -> None:
        self._folder = folder
        self._origin = origin

    def recipe(self, modules: list[tuple[str, str]]) -> Recipe:
        kinds = [kind for kind, _ in modules]
        if kinds[:2] != ["Transformer", "Pooling"]:
            raise self._unsupported(
                next((k for k in kinds if k not in ("Transformer", "Pooling")), "Pooling")
            )
        (_, transformer), (_, pooling), *rest = modules
        normalizes = bool(rest) and rest[-1][0] == "Normalize"
        heads = [self._head(kind, path) for kind, path in (rest[:-1] if normalizes else rest)]
        pooled = self._config(pooling)
        where = self._inside(transformer)
        told: dict[str, Any] = next((found for name in _TRANSFORMER if (found := _json(where / name))), {})
        about = _json(self._folder / "config_sentence_transformers.json") or {}
        return Recipe(
            where,
            max_seq_length=told.get("max_seq_length"),
            lower_case=bool(told.get("do_lower_case")),
            pooling=self._modes(pooled),
            skips_prompt=not pooled.get("include_prompt", True),
            heads=tuple(head for head in heads if head is not None),
            normalizes=normalizes,
            prompts=dict(about.get("prompts") or {}),
            default_prompt=about.get("default_prompt_name"),
        )

    def _unsupported(self, kind: str) -> ModelLoadError:
        known = "`Transformer`, `Pooling`, `Dense`, `LayerNorm` and `Normalize`, in this order"
        return ModelLoadError(
            f"`{self._origin}` uses the module `{kind}` of sentence-transformers, or leaves it out, in a way "
            "that is not supported",
            hint=f"supported are {known}",
        )

    def _inside(self, path: str) -> Path:
        """A folder of the model. Raises ModelLoadError for one that is somewhere else."""
        where = (self._folder / path).resolve()
        if not where.is_relative_to(self._folder.resolve()):
            raise ModelLoadError(f"`{_LIST}` of `{self._origin}` refers to `{path}`, outside the model")
        return self._folder / path

    def _config(self, path: str) -> dict[str, Any]:
        found = _json(self._inside(path) / "config.json")
        if found is None:
            raise ModelLoadError(f"`{path}/config.json` of `{self._origin}` is missing")
        return dict(found)

    def _modes(self, config: dict[str, Any]) -> tuple[str, ...]:
        told = config.get("pooling_mode")
        if told is None:
            told = [mode for key, mode in _OLD_MODES.items() if config.get(key)] or ["mean"]
        modes = (told,) if isinstance(told, str) else tuple(told)
        for mode in modes:
            if mode not in _MODES:
                raise ModelLoadError(
                    f"`{self._origin}` pools its tokens with `{mode}`, which is not supported"
                )
        return modes

    def _head(self, kind: str, path: str) -> Head | None:
        match kind:
            case "Dropout":  # for training
                return None
            case "Normalize":
                return Head(kind, self._folder, {})
            case "Dense" | "LayerNorm":
                config = self._config(path)
                wanted = config.get("module_input_name", "sentence_embedding")
                if wanted == "sentence_embedding":
                    return Head(kind, self._inside(path), config)
        raise self._unsupported(kind)


def _json(path: Path) -> Any:
    """What a file says, None if it is not there. Raises ModelLoadError if it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"`{path}` cannot be read: {error}") from error
