"""How is a Python class of the user's own a model like any other?

The class has as much of this as it needs; what it leaves out does nothing:

    class MyModel:
        class Options(msgspec.Struct): ...         # what `options:` of the component may say
        class Params(msgspec.Struct): ...          # what `params` of a request may say

        def load(self, options: LoadOptions): ...  # `options.options` is an `Options`
        def prepare(self, request): ...            # on a CPU thread: tokenize, decode; or an Item, or several
        def forward(self, batch: list): ...        # what `prepare` gave, of several callers; as many results
        def finish(self, request, raw): ...        # on a CPU thread: the task's result, as a map

or else a plain `__call__(self, request)` that gives the result. `request.params` is a `Params`.
Only its worker imports the class.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.params import PARAMS, params_of
from model_compose.errors import EngineError, ModelLoadError

#: Rows of one forward pass, where the file sets no `batch_size`.
_ROWS: Final = 32
_NO_LIMIT: Final = 1 << 62


class OwnModel:
    """A `BatchModel` around an object of the user's class."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Import the class, and have it load. Raises ModelLoadError."""
        assert options.implementation is not None  # the check of the file sees to it
        cls = _imported(options.implementation)
        if not (callable(getattr(cls, "forward", None)) or "__call__" in dir(cls)):
            raise ModelLoadError(
                f"`{options.implementation}` has neither `forward` nor `__call__`",
                hint="`forward(self, batch)` computes rows of several callers, `__call__(self, request)` one",
            )
        own = _options(cls, options)
        self._params = _inner(cls, "Params", options)
        self._model = cls()
        self._rows = options.batch_size or _ROWS
        self._several = hasattr(self._model, "forward")
        # A class may want to know of threads and cancellation, or not.
        self._wants_step = self._several and _takes_two(self._model.forward)
        if hasattr(self._model, "load"):
            self._model.load(msgspec.structs.replace(options, options=own))
        return ModelInfo(slots=1, threads=options.threads, details={"implementation": options.implementation})

    def budget(self) -> tuple[int, int]:
        """The most rows; costs count only where the class gives any."""
        return self._rows, _NO_LIMIT

    def prepare(self, request: Any) -> list[Item]:
        """What the class makes of a request: anything, one `Item` or a list of them. Raises InvalidInput."""
        # In place: `finish` gets the same request, and what a default makes up it makes up once.
        msgspec.structs.force_setattr(request, PARAMS, params_of(request, self._params))
        made = self._model.prepare(request) if hasattr(self._model, "prepare") else request
        items = made if isinstance(made, list) and made and isinstance(made[0], Item) else [made]
        return [item if isinstance(item, Item) else Item(1, None, item) for item in items]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        """What the class makes of rows; of one that computes them one by one, each may fail alone."""
        batch = [item.payload for item in items]
        if not self._several:
            return [_tried(self._model, each) for each in batch]
        rows = self._model.forward(batch, step) if self._wants_step else self._model.forward(batch)
        found = list(rows)
        if len(found) != len(batch):
            raise EngineError(f"`forward` gave {len(found)} rows for {len(batch)}")
        return found

    def finish(self, request: Any, raws: Sequence[Any]) -> Outcome:
        """The result of a request."""
        raw = raws[0] if len(raws) == 1 else list(raws)
        result = self._model.finish(request, raw) if hasattr(self._model, "finish") else raw
        return result if isinstance(result, Outcome) else Outcome(result)

    def metrics(self) -> Mapping[str, float]:
        """What the class counts, if it does."""
        return dict(self._model.metrics()) if hasattr(self._model, "metrics") else {}

    def memory(self) -> Mapping[str, int]:
        """Bytes by pool of what does not lie in RAM, as the class tells, or else PyTorch if that is there."""
        if hasattr(self._model, "memory"):
            return dict(self._model.memory())
        if "torch" not in sys.modules:
            return {}
        from model_compose.drivers.huggingface.memory import taken

        return taken()


def _tried(model: Callable[[Any], Any], request: Any) -> Any:
    try:
        return model(request)
    except Exception as error:  # noqa: BLE001  it goes to the one caller whose request this is
        return error


def _takes_two(method: Callable[..., Any]) -> bool:
    parameters = inspect.signature(method).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters) >= 2


def _imported(implementation: str) -> Any:
    """The class that `/path/to/file.py:Class` or `package.module:Class` names."""
    where, _, name = implementation.rpartition(":")
    if not where or not name:
        hint = "write `./file.py:Class`, or `package.module:Class`"
        raise ModelLoadError(f"`implementation` is `{implementation}`, which names no class", hint=hint)
    try:
        module = _module_of_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except FileNotFoundError:
        raise ModelLoadError(f"there is no file `{where}`") from None
    except Exception as error:
        raise ModelLoadError(f"`{where}` cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise ModelLoadError(f"`{where}` has no class `{name}`")
    return getattr(module, name)


def _module_of_file(path: Path) -> Any:
    """A file as a module, which finds its neighbours as a script would."""
    sys.path.insert(0, str(path.parent))
    name = f"own_{path.stem}"  # a file that is called `json.py` shall not be everybody's `json`
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _options(cls: Any, options: LoadOptions) -> Any:
    """`options:` of the component as the class wants them."""
    wanted = _inner(cls, "Options", options)
    if wanted is None:
        if options.options:
            raise ModelLoadError(
                f"`{options.implementation}` takes no `options`",
                hint="give it an inner class `Options(msgspec.Struct)` with the fields that it takes",
            )
        return {}
    known = {field.encode_name for field in msgspec.structs.fields(wanted)}
    strange = sorted(options.options.keys() - known)
    if strange:
        names = ", ".join(f"`{name}`" for name in sorted(known))
        raise ModelLoadError(f"`options` has no `{strange[0]}`", hint=f"there are {names or 'none'}")
    try:
        return msgspec.convert(options.options, wanted)
    except msgspec.ValidationError as error:
        raise ModelLoadError(f"`options`: {error}") from error


def _inner(cls: Any, name: str, options: LoadOptions) -> type[msgspec.Struct] | None:
    """An inner class that declares what the user's class takes, if it has one. Raises ModelLoadError."""
    found = getattr(cls, name, None)
    if found is None or (isinstance(found, type) and issubclass(found, msgspec.Struct)):
        return found
    raise ModelLoadError(
        f"`{name}` of `{options.implementation}` is no `msgspec.Struct`",
        hint=f"write `class {name}(msgspec.Struct):`, with a typed field for each thing that it takes",
    )
