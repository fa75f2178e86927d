"""How does peft compute with the adapters of a request?

Unsloth's own kernels read the layers of peft, so a hook in a layer, as `drivers/huggingface/lora.py` puts it
there, would not be called. They know one adapter at a time; it is the blend that the request asks for.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.huggingface.lora import require_finite
from model_compose.drivers.huggingface.lora_blends import Adapter, blend, write
from model_compose.drivers.huggingface.lora_files import read
from model_compose.drivers.huggingface.memory import out_of_memory
from model_compose.drivers.unsloth.size import KEPT
from model_compose.errors import ModelLoadError, first_line


class Blends:
    """The adapters of one model, for the one thread that computes. A `Blending` for one request at a time."""

    def __init__(self, model: Any, given: Sequence[LoadedAdapter], folder: Path) -> None:
        """Put adapters into the layers of a model, quantized ones too. Blocks. Raises ModelLoadError.

        folder  private, for what is made of them; it does not exist yet
        """
        import peft

        self._adapters = [Adapter(each) for each in given]
        for adapter, each in zip(self._adapters, given, strict=True):
            for delta in read(model, each):  # peft would only print that one has no place in the model
                require_finite(each, delta)
                _require_own_name(adapter, each, delta.layer)
        self._folder = folder
        self._kept: dict[tuple[float, ...], str] = {}
        self._now: tuple[float, ...] | None = None
        self._count = 0
        default = blend(self._adapters, None)
        first = folder / "blend-0"
        write(self._adapters, default, first)
        names = ", ".join(f"`{each.name}`" for each in given)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._model: Any = peft.PeftModel.from_pretrained(model, str(first), adapter_name=first.name)
                self._kept[default] = first.name
                self._layers = self._with_adapters()
                for adapter in self._adapters:
                    chosen = blend(self._adapters, {adapter.name: adapter.weight or 1.0})
                    self.use([chosen])
                    _require_added(model, adapter, self._kept[chosen])
        except ModelLoadError:
            raise
        except Exception as error:
            raise out_of_memory(error) or ModelLoadError(
                f"peft cannot load the adapters {names}: {first_line(error)}"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.use([default])

    def blend(self, weights: Mapping[str, float] | None) -> tuple[float, ...]:
        """Weights of the adapters of one request. Raises InvalidInput."""
        return blend(self._adapters, weights)

    def use(self, rows: Sequence[tuple[float, ...]]) -> None:
        """The blend of the next forward passes, which all rows have. Raises what keeps it from being made."""
        (chosen,) = set(rows)
        if chosen == self._now:
            return
        self._now = None
        name = self._named(chosen) if any(chosen) else None
        for layer in self._layers:
            # Unsloth's kernels look up the active adapter in each layer that is not disabled.
            has = name in layer.lora_A or name in layer.lora_embedding_A
            layer.enable_adapters(has)
            if has:
                layer.set_adapter([name], inference_mode=True)
        self._now = chosen
        if len(self._kept) > KEPT:
            self._model.delete_adapter(self._kept.pop(next(iter(self._kept))))

    def _named(self, chosen: tuple[float, ...]) -> str:
        """The name of a blend, which is in the layers from now on."""
        name = self._kept.pop(chosen, None) or self._load(chosen)
        self._kept[chosen] = name  # at the end: the first has not been used for longest
        return name

    def _load(self, chosen: tuple[float, ...]) -> str:
        self._count += 1
        name = f"blend-{self._count}"
        try:
            write(self._adapters, chosen, self._folder / name)
            self._model.load_adapter(str(self._folder / name), adapter_name=name)
        except BaseException:
            if name in self._model.peft_config:
                self._model.delete_adapter(name)  # half of it may be there
            raise
        finally:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        self._layers = self._with_adapters()
        return name

    def _with_adapters(self) -> list[Any]:
        """The layers that have any."""
        from peft.tuners.lora import LoraLayer

        return [module for module in self._model.modules() if isinstance(module, LoraLayer)]


def _require_own_name(adapter: Adapter, given: LoadedAdapter, layer: str) -> None:
    """Raise ModelLoadError for a layer whose name in the file is another: peft would not find it."""
    if layer not in adapter.layers:
        raise ModelLoadError(
            f"adapter `{given.name}` (`{given.source.origin}`) does not name `{layer}` as the model does, "
            "and peft would leave it out",
            hint="`driver: huggingface` takes it",
        )


def _require_added(model: Any, adapter: Adapter, name: str) -> None:
    """Raise ModelLoadError where peft left out a layer that is in an adapter's file."""
    for layer in adapter.layers:
        module = model.get_submodule(layer)
        if not any(name in getattr(module, halves, ()) for halves in ("lora_A", "lora_embedding_A")):
            raise ModelLoadError(
                f"peft adds nothing of adapter `{adapter.name}` to `{layer}`",
                hint="`target_modules` of its `adapter_config.json` does not name it",
            )
