"""How can spandrel be imported where there is no torchvision?

`import spandrel` imports every architecture that it knows, and two of them, LaMa and RestoreFormer, which
fill holes and restore faces, take three names from torchvision. We read neither. The torchvision of PyPI is
built for CUDA and does not load beside a torch for the CPU, where it also breaks transformers; so it is not
asked of anybody. While spandrel is imported, and no longer, modules stand in that have those three names:
who uses one of them gets an error that says so.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from model_compose.errors import DriverMissing, ModelLoadError, first_line

_MODULES: Final = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def import_spandrel() -> Any:
    """spandrel. Raises DriverMissing, and ModelLoadError where torchvision is there and broken."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        _require_torchvision()
        return _spandrel()
    with _stand_ins():
        return _spandrel()


def _spandrel() -> Any:
    try:
        return importlib.import_module("spandrel")
    except ImportError as error:
        raise DriverMissing(
            f"`spandrel` cannot be imported: {error}", hint="pip install 'modelyard-compose[image]'"
        ) from error


def _require_torchvision() -> None:
    try:
        importlib.import_module("torchvision.transforms.functional")
    except Exception as error:
        raise ModelLoadError(
            f"torchvision is installed and cannot be imported: {first_line(error)}",
            hint="it was built for another torch: `pip uninstall torchvision`, which is not needed here, or "
            "install the one that belongs to your torch, from the index that you have torch from",
        ) from error


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    modules = {name: ModuleType(name) for name in _MODULES}
    functional: Any = modules[_MODULES[-1]]
    functional.rotate = functional.normalize = _absent
    functional.InterpolationMode = _Absent()
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _absent(*_: object, **__: object) -> None:
    raise ModelLoadError("this network needs torchvision", hint="pip install torchvision")


class _Absent:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent()
