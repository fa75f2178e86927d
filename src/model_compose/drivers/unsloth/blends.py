"""How does peft compute with the adapters of a request?

Unsloth's own kernels read the layers of peft, so a hook in a layer, as `drivers/huggingface/lora.py` puts it
there, would not be called. They know one adapter at a time; it is the blend that the request asks for.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.huggingface.lora_blends import Adapter, blend, write
from model_compose.drivers.huggingface.lora_files import read
from model_compose.errors import ModelLoadError

#: Blends that stay in memory for the next request.
KEPT: Final = 16


class Blends:
    """The adapters of one model, for the one thread that computes. A `Blending` for one request at a time."""

    def __init__(self, model: Any, given: Sequence[LoadedAdapter], folder: Path) -> None:
        """Put adapters into the layers of a model, quantized ones too. Blocks. Raises ModelLoadError.

        folder  private, for what is made of them; it does not exist yet
        """
        import peft

        self._adapters = [Adapter(each) for each in given]
        for each in given:
            for _ in read(model, each):
                pass  # peft would only print that one has no place in the model
        self._folder = folder
        self._kept: dict[tuple[float, ...], str] = {}
        self._count = 0
        default = blend(self._adapters, None)
        written = self._write(default)
        names = ", ".join(f"`{each.name}`" for each in given)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._model: Any = peft.PeftModel.from_pretrained(
                    model, str(written), adapter_name=written.name
                )
                self._kept[default] = written.name
                for adapter in self._adapters:
                    self.use([blend(self._adapters, {adapter.name: adapter.weight or 1.0})])
        except (ValueError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelLoadError(f"peft cannot load the adapters {names}: {why}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.use([default])

    def blend(self, weights: Mapping[str, float] | None) -> tuple[float, ...]:
        """Weights of the adapters of one request. Raises InvalidInput."""
        return blend(self._adapters, weights)

    def use(self, rows: Sequence[tuple[float, ...]]) -> None:
        """The blend of the next forward passes, which all rows have."""
        (chosen,) = set(rows)
        layers = self._model.base_model
        if not any(chosen):
            layers.disable_adapter_layers()
            return
        name = self._kept.pop(chosen, None) or self._load(chosen)
        self._kept[chosen] = name  # at the end: the first has not been used for longest
        layers.enable_adapter_layers()
        self._model.set_adapter(name)
        if len(self._kept) > KEPT:
            self._model.delete_adapter(self._kept.pop(next(iter(self._kept))))

    def _load(self, chosen: tuple[float, ...]) -> str:
        written = self._write(chosen)
        try:
            self._model.load_adapter(str(written), adapter_name=written.name)
        finally:
            shutil.rmtree(written, ignore_errors=True)
        return written.name

    def _write(self, chosen: tuple[float, ...]) -> Path:
        self._count += 1
        folder = self._folder / f"blend-{self._count}"
        write(self._adapters, chosen, folder)
        return folder
